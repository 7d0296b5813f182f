"""Wording of error messages and reports: counts, names and shortened values, each in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MAX_VALUE_CHARACTERS = 80  # of a value in an error
MAX_REASON_CHARACTERS = 200  # of a library's error
MAX_NAMES = 20  # in a list of columns


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(text: str, max_characters: int = MAX_VALUE_CHARACTERS) -> str:
    """The text, cut to `max_characters` with `...` at its end if it is longer; a quoted text stays quoted."""
    if len(text) <= max_characters:
        return text
    end = f"...{text[0]}" if text[0] == text[-1] and text[0] in "'\"" else "..."
    return text[: max_characters - len(end)] + end


def quoted_if_odd(name: str) -> str:
    """A name; quoted and escaped if it is empty or holds backticks or characters that cannot be printed.

    Errors have settings in backticks.
    """
    return name if name.isprintable() and name and "`" not in name else repr(name)


def printable(name: str) -> str:
    """A column's name as in `quoted_if_odd`, shortened."""
    return shorten(quoted_if_odd(name))


def join_names(names: Iterable[str]) -> str:
    """Column names separated by commas: the first `MAX_NAMES`, then the number of the others."""
    names = list(names)
    n_more = len(names) - MAX_NAMES
    return ", ".join(map(printable, names[:MAX_NAMES])) + (f" and {n_more:,} more" if n_more > 0 else "")


def escaped(text: str) -> str:
    """The text with unprintable characters escaped, as in `repr`."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def error_line(error: BaseException) -> str:
    """The first line of an error's text, shortened, with unprintable characters escaped."""
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    if not lines:
        return type(error).__name__
    return shorten(escaped(lines[0]))


@contextmanager
def library_errors(message: str, advice: str = "") -> Iterator[None]:
    """Turn any error of a library that reads a file, panics of the tokenizers included, into one line.

    Raises:
        ValueError: `message`, the library's reason and `advice`.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic is no Exception
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        reason = escaped(" ".join(str(error).split())).rstrip(".") or type(error).__name__
        raise ValueError(f"{message}: {shorten(reason, MAX_REASON_CHARACTERS)}{advice}") from error
