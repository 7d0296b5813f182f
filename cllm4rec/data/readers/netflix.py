"""Files of the Netflix prize: blocks of a line `1:` for the movie, then lines of user, rating and date."""

import re

import polars as pl

from cllm4rec.data.readers.decompression import UTF8_MARK
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import SourceFile

# Lines of movies, of which only the last has ratings; then the cells of a rating, maybe without a user.
_FIRST_BLOCK = re.compile(
    rb"(?:\s*\d+:[ \t]*\r?\n)+"
    rb"((?:\d+|(?=,[1-5]))(?:,[1-5](?:\.0)?)?(?:,\d{4}-\d\d-\d\d)?)[ \t]*(?:\r?\n|\Z)"
)
# By the number of commas in the first rating.
_COLUMNS = (("user_id",), ("user_id", "timestamp"), ("user_id", "rating", "timestamp"))
EXPECTED_LINE = "expected a movie's number with a colon, or as many cells as the first rating has"


def is_netflix(file: SourceFile) -> bool:
    """Whether a file begins with a block, and no option says that it is another text table."""
    if not file.options.header or file.options.separator not in (None, ","):
        return False
    return _FIRST_BLOCK.match(file.sample.removeprefix(UTF8_MARK)) is not None


def read_netflix(file: SourceFile) -> RawTable:
    """Read the ratings; some files hold only users, or users and dates.

    Raises:
        ValueError: a line is neither the head of a block nor a rating.
    """
    text = file.text.removeprefix(UTF8_MARK)
    first_block = _FIRST_BLOCK.match(text)
    columns = _COLUMNS[first_block[1].count(b",") if first_block else 0]
    try:
        lines = pl.read_csv(",".join(columns).encode() + b"\n" + text, infer_schema=False, quote_char=None)
    except pl.exceptions.ComputeError:  # more cells than columns
        numbered = enumerate(text.split(b"\n"), 1)
        line = next((number for number, cells in numbered if cells.count(b",") >= len(columns)), 1)
        raise ValueError(f"{file.path}, line {line}: {EXPECTED_LINE}") from None
    movie = pl.col("user_id").str.strip_chars_end().str.extract("^([^,]+):$")
    if len(columns) > 1:  # a rating has further cells
        movie = pl.when(pl.all_horizontal(pl.col(columns[1:]).is_null())).then(movie)
    lines = lines.with_row_index("line", 1).with_columns(movie.alias("item_id"))
    is_blank = lines.select(pl.all_horizontal(pl.col(columns).is_null())).to_series()
    is_rating = lines["item_id"].is_null() & ~is_blank
    ratings = lines.with_columns(pl.col("item_id").forward_fill()).filter(is_rating)
    line_numbers = ratings["line"]
    frame = ratings.select("item_id", *columns)
    raw = RawTable(frame, file.name, frame.columns, lambda row: f"line {line_numbers[row]}")
    for column in columns[1:]:  # a missing user is handled as in other tables
        raw.refuse(column, ratings[column].is_null(), EXPECTED_LINE)
    return raw
