"""Commands and Python of a Markdown page, what the page shows that they print, and a comparison with it.

In the shown text `...` on a line of its own is any number of lines, within a line the rest of a line or a
gap in it. A run of spaces is any run of spaces or tabs. A number with a decimal point may differ by 2 %.
Below 1 it is a metric or its interval, and may differ by 10 % or by .002. All else, whole numbers included,
is compared as it is.
"""

import re
from dataclasses import dataclass

RELATIVE, RELATIVE_BELOW_1, ABSOLUTE_BELOW_1 = 0.02, 0.1, 0.002  # tolerances
DECIMAL = r"[-+]?\d*\.\d+(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Example:
    """Something to run: a shell command, or a Python program.

    Attributes:
        language: "shell" or "python".
        source: as the page has it.
        shown: what the page says that it prints.
    """

    language: str
    source: str
    shown: str


def examples(page: str) -> list[Example]:
    """The examples of a page, in its order.

    Shell commands are the lines that begin with `$ ` in a block ```` ```console ````, each followed by what
    it prints. A block ```` ```python ```` is followed by a block ```` ```text ````.
    """
    found, program = [], None
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        if language == "console":
            for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                source, shown = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", command, re.DOTALL).groups()
                found.append(Example("shell", source, shown))
        elif language == "python":
            program = block
        elif language == "text" and program is not None:
            found.append(Example("python", program, block))
            program = None
    return found


def program(page: str) -> str:
    """The Python blocks of a page as one program."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))


def difference(shown: str, printed: str) -> str | None:
    """What differs between the text of a page and the printed one; None if nothing does."""
    match = re.fullmatch(_pattern(shown), printed)
    if match is None:
        return f"the page shows\n{shown}\nand this was printed\n{printed}"
    for expected, value in zip(re.findall(DECIMAL, shown), match.groups(), strict=True):
        if not _close(float(expected), float(value)):
            return f"the page shows {expected} where {value} was printed:\n{printed}"
    return None


def _close(expected: float, value: float) -> bool:
    """Whether a printed number is within the tolerance of the shown one."""
    if abs(expected) < 1:
        return abs(value - expected) <= max(RELATIVE_BELOW_1 * abs(expected), ABSOLUTE_BELOW_1)
    return abs(value - expected) <= RELATIVE * abs(expected)


def _pattern(shown: str) -> str:
    """A regular expression of the printed text, with a group for each decimal number."""
    pieces = re.split(rf"(^\.\.\.\n|\.\.\.|{DECIMAL}| +)", shown, flags=re.MULTILINE)
    return "".join(_piece_pattern(piece) for piece in pieces)


def _piece_pattern(piece: str) -> str:
    """The regular expression of a gap, a number, spaces or other text."""
    if piece == "...\n":
        return r"(?:.*\n)*?"
    if piece == "...":
        return ".*?"
    if re.fullmatch(DECIMAL, piece):
        return f"({DECIMAL})"
    return r"[ \t]+" if piece.startswith(" ") else re.escape(piece)
