"""Wording of error messages and reports: counts, names and shortened values in one line."""

from collections.abc import Iterable

MOST_SHOWN = 80  # characters of a value in an error


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(text: str, most: int = MOST_SHOWN) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def printable(name: str) -> str:
    """A column's name as it is, or quoted where it would not read as a part of one line."""
    return shorten(name) if name.isprintable() and name else shorten(repr(name))


def join_names(names: Iterable[str]) -> str:
    """Column names for an error: the first twenty."""
    names = list(names)
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(map(printable, names[:20])) + more


def error_line(error: BaseException) -> str:
    """What an error says, in one short line."""
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    line = (
        "".join(char if char.isprintable() else repr(char)[1:-1] for char in lines[0])
        if lines
        else type(error).__name__
    )
    return shorten(line)
