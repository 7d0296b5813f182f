"""Advice for the end of an error: how else the text of a file may be read, by its first lines."""

import re
from collections.abc import Sequence

USER_COLUMN_NAMES = ("user", "user_id", "userid", "uid")  # a header may begin with them
# Content of the table -> how to read it if its first row is data.
NO_HEADER_ADVICE = {
    "the events": "give `header=False`, and columns by number (`columns` user_id=1,item_id=2)",
    "the items": "give `header=False`, and columns by number (`item_columns` item_id=1,title=2)",
    "the users": "give `header=False`, and columns by number (`user_columns` user_id=1)",
    "the split": "write a header",
}
# Content of the table -> how to name its columns.
COLUMN_ADVICE = {
    "the events": "; name the right ones with `columns` user_id=NAME,item_id=NAME",
    "the items": "; name the right ones with `item_columns` item_id=NAME,title=NAME",
    "the users": "; name the right one with `user_columns` user_id=NAME",
}
MAX_LINES = 20
QUOTED_TEXT = re.compile(r'"(?:[^"]|"")*"')
_SEPARATORS = ("::", "\t", ";", "|", ",", " ")
_LINE_OF_IDS = re.compile(r"[\w-]+([ \t,]+[\w-]+)+[ \t,]*")


def first_lines(beginning: bytes) -> list[str]:
    """The first lines that are not blank. The last line may be cut: it is left out if there are others."""
    *complete, last = beginning.decode(errors="replace").splitlines() or [""]
    return [line for line in complete or [last] if line.strip()][:MAX_LINES]


def sequences_advice(lines: Sequence[str], name: str, content: str) -> str | None:
    """How to read lines that each seem to be a user and the items in order; None for other lines.

    Args:
        lines: the first lines of the file that are not blank.
        name: the file's name; in .csv files commas separate the ids without an option.
        content: of the table. Only events are read so.
    """
    if content != "the events" or not lines:
        return None
    ids = [line.replace(",", " ").split() for line in lines]
    users = [line_ids[0] for line_ids in ids if line_ids]
    if not all(map(_LINE_OF_IDS.fullmatch, lines)) or not any(len(line_ids) > 2 for line_ids in ids):
        return None
    if users[0].lower() in USER_COLUMN_NAMES or len(set(users)) < len(users):
        return None
    is_csv = name.lower().removesuffix(".gz").endswith(".csv")
    needs_separator = any("," in line for line in lines) and not is_csv
    options = "`sequences` and `separator` ','" if needs_separator else "`sequences`"
    return f"{options} if each line is a user and the items in order"


def format_advice(beginning: bytes, name: str, content: str) -> str | None:
    """How to read a file whose name tells no format; None if it does not begin as text does.

    Args:
        beginning: its first bytes.
        name: its name.
        content: of the table, a key of `NO_HEADER_ADVICE`.
    """
    lines = first_lines(beginning)
    if not lines or "\0" in beginning.decode("latin-1"):
        return None
    ways = []
    for separator in _SEPARATORS:
        counts = {QUOTED_TEXT.sub("", line).count(separator) for line in lines}
        if len(counts) == 1 and counts != {0}:
            table = f"give `separator` {separator!r} if it is a table"
            ways.append("rename it ratings.dat" if separator == "::" else table)
            break
    sequences = sequences_advice(lines, name, content)
    if sequences is not None:
        ways.append(f"give {sequences}")
    return ", or ".join(ways) or None
