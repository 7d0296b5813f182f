"""How else a file of text may be read: advice for the end of an error, told from its first lines."""

import re
from collections.abc import Sequence

USER_NAMES = ("user", "user_id", "userid", "uid")  # names that a header begins with
NO_HEADER = {  # which table it is -> how to read it if its first row is data
    "the events": "give --no-header, and columns by number (--columns user_id=1,item_id=2)",
    "the items": "give --no-header, and columns by number (--item-columns item_id=1,title=2)",
    "the users": "give --no-header, and columns by number (--user-columns user_id=1)",
    "the split": "write a header",
}
FIRST_LINES = 20
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SEPARATORS = ("::", "\t", ";", "|", ",", " ")
_IDS = re.compile(r"[\w-]+([ \t,]+[\w-]+)+[ \t,]*")


def first_lines(beginning: bytes) -> list[str]:
    """The first lines that are not blank; the last, which may be cut, only if there is no other."""
    *whole, last = beginning.decode(errors="replace").splitlines() or [""]
    return [line for line in whole or [last] if line.strip()][:FIRST_LINES]


def sequence_way(lines: Sequence[str], name: str, holds: str) -> str | None:
    """How to read lines of a user and the items in order; None if they are something else.

    Args:
        lines: the first lines of the file that are not blank.
        name: the file's name, which may make commas separators.
        holds: which table it is; only events are read so.
    """
    if holds != "the events" or not lines:
        return None
    ids = [line.replace(",", " ").split() for line in lines]
    users = [words[0] for words in ids if words]
    if not all(map(_IDS.fullmatch, lines)) or not any(len(words) > 2 for words in ids):
        return None
    if users[0].lower() in USER_NAMES or len(set(users)) < len(users):
        return None
    commas = any("," in line for line in lines) and not name.lower().removesuffix(".gz").endswith(".csv")
    flags = "--sequences --separator ','" if commas else "--sequences"
    return f"{flags} if each line is a user and the items in order"


def likely_way(beginning: bytes, name: str, holds: str) -> str | None:
    """How to read a file whose name does not say its kind; None if it does not begin as text does.

    Args:
        beginning: its first bytes.
        name: its name.
        holds: which table it is, a key of `NO_HEADER`.
    """
    lines = first_lines(beginning)
    if not lines or "\0" in beginning.decode("latin-1"):
        return None
    counts = {one: [_QUOTED.sub("", line).count(one) for line in lines] for one in _SEPARATORS}
    even = [one for one in _SEPARATORS if counts[one][0] and len(set(counts[one])) == 1]
    table = None
    if even:
        table = (
            "rename it ratings.dat" if even[0] == "::" else f"give --separator {even[0]!r} if it is a table"
        )
    sequences = sequence_way(lines, name, holds)
    ways = [way for way in (table, sequences and f"give {sequences}") if way]
    return ", or ".join(ways) or None
