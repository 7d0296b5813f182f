"""Lines of a user and the items in order, without a header: `1 1 2 3`. The option `sequences` selects it."""

import re

import polars as pl

from cllm4rec.data.readers.advice import USER_COLUMN_NAMES
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import SourceFile
from cllm4rec.data.readers.text import TextTable

ONE_LINE_PER_USER = (
    "expected one line for each user (`separator` and `header=False` read lines of a user and an item)"
)


def is_sequences(file: SourceFile) -> bool:
    """Whether the user says that the lines are sequences."""
    return file.options.sequences


def read_sequences(file: SourceFile) -> RawTable:
    """Read the users as `user_id` and their items as `item_ids`.

    Ids are separated by any number of spaces, tabs and given separators, in .csv by commas too.

    Raises:
        ValueError: there is a header, or a user has several lines.
    """
    separators = " \t" + ("," if file.suffix == "csv" else "") + (file.options.separator or "")
    records = TextTable(file.text, file.name, "\0", quoted=False, columns=["line"]).records()
    line_numbers, cells = zip(*records, strict=True)
    ids = pl.Series([text for (text,) in cells]).str.replace_all(f"[{re.escape(separators)}]+", " ")
    ids = ids.str.strip_chars(" ").str.split(" ")
    users = ids.list.first()
    if users[0].lower() in USER_COLUMN_NAMES:
        reason = "`sequences` reads lines of ids only, and this file has a header"
        raise ValueError(f"{file.path}: {reason}: leave the option out")
    frame = pl.DataFrame({"user_id": users, "item_ids": ids.list.slice(1)})
    raw = RawTable(frame, file.name, frame.columns, lambda row: f"line {line_numbers[row]}")
    raw.refuse("user_id", ~users.is_first_distinct(), ONE_LINE_PER_USER)
    return raw
