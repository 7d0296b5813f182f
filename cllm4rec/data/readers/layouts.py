"""Text that is no table: lines of a user and the items, and Netflix' blocks of ratings below their movie."""

import re

import polars as pl

from cllm4rec.data.readers.advice import USER_NAMES
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.text import TextTable

_BLOCK = re.compile(  # heads, some of movies without ratings; then the cells of a rating, whose user may be missing
    rb"(?:\s*\d+:[ \t]*\r?\n)+"
    rb"((?:\d+|(?=,[1-5]))(?:,[1-5](?:\.0)?)?(?:,\d{4}-\d\d-\d\d)?)[ \t]*(?:\r?\n|\Z)"
)
_BLOCK_COLUMNS = (("user_id",), ("user_id", "timestamp"), ("user_id", "rating", "timestamp"))
_BLOCK_NEED = "a movie's number with a colon is needed, or as many cells as the first rating has"


def read_sequences(data: bytes, name: str, separators: str) -> RawTable:
    """Lines of ids, the first a user and the others the items in order, as `user_id` and `item_ids`.

    Args:
        data: the text, UTF-8.
        name: the file's name, for errors.
        separators: characters between the ids; any number of them.

    Raises:
        ValueError: there is a header, or a user has several lines.
    """
    lines, texts = zip(*TextTable(data, name, "\0", quoted=False, header=["line"]).records(), strict=True)
    ids = pl.Series([text for (text,) in texts]).str.replace_all(f"[{re.escape(separators)}]+", " ")
    ids = ids.str.strip_chars(" ").str.split(" ")
    users = ids.list.first()
    frame = pl.DataFrame({"user_id": users, "item_ids": ids.list.slice(1)})
    if users[0].lower() in USER_NAMES:
        raise ValueError(
            f"{name}: --sequences reads lines of ids alone, and this file has a header: leave the flag out"
        )
    raw = RawTable(frame, name, frame.columns, lambda row: f"line {lines[row]}")
    way = "one line for each user is needed (lines of a user and an item are read with --separator and --no-header)"
    raw.refuse("user_id", ~users.is_first_distinct(), way)
    return raw


def is_blocks(beginning: bytes) -> bool:
    """Whether a file begins as those of the Netflix prize do: `1:`, then lines of user, rating and date."""
    return _BLOCK.match(beginning.removeprefix(b"\xef\xbb\xbf")) is not None


def read_blocks(data: bytes, name: str) -> RawTable:
    """The ratings of Netflix' files as a table; in some there are only users, or users and dates.

    Raises:
        ValueError: a line is neither the head of a block nor a rating.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    found = _BLOCK.match(data)
    columns = _BLOCK_COLUMNS[found[1].count(b",") if found else 0]
    try:
        cells = pl.read_csv(",".join(columns).encode() + b"\n" + data, infer_schema=False, quote_char=None)
    except pl.exceptions.ComputeError:  # more cells than columns
        lines = enumerate(data.split(b"\n"), 1)
        line = next((number for number, text in lines if text.count(b",") >= len(columns)), 1)
        raise ValueError(f"{name}, line {line}: {_BLOCK_NEED}") from None
    head = pl.col("user_id").str.strip_chars_end().str.extract("^([^,]+):$")
    movie = pl.when(pl.all_horizontal(pl.col(columns[1:]).is_null())).then(head) if len(columns) > 1 else head
    cells = cells.with_row_index("line", 1).with_columns(movie.alias("item_id"))
    empty = cells.select(pl.all_horizontal(pl.col(columns).is_null())).to_series()
    rows = cells.with_columns(pl.col("item_id").forward_fill()).filter(cells["item_id"].is_null() & ~empty)
    numbers = rows["line"]
    raw = RawTable(
        rows.select("item_id", *columns), name, ["item_id", *columns], lambda row: f"line {numbers[row]}"
    )
    for column in columns[1:]:  # rows without a user are refused or dropped as those of other tables
        raw.refuse(column, rows[column].is_null(), _BLOCK_NEED)
    return raw
