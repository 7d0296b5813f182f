"""Tables of events, items and users from files: TSV, CSV, JSON lines or Parquet, plain or gzip."""

from pathlib import Path

import polars as pl

ALIASES = {  # a column of this package <- names under which it is found, the first present one wins
    "user_id": ("user_id", "user", "userId", "userid", "customer_id", "reviewerID"),
    "item_id": ("item_id", "item", "itemId", "itemid", "movieId", "product_id", "parent_asin", "asin"),
    "rating": ("rating", "overall", "stars", "score"),
    "timestamp": ("timestamp", "time", "unixReviewTime", "date"),
    "position": ("position",),
    "review_text": ("review_text", "review", "reviewText", "text"),
    "title": ("title", "name", "item_name"),
    "description": ("description",),
    "categories": ("categories", "category", "genres", "genre"),
    "brand": ("brand",),
    "year": ("year",),
    "biography": ("biography", "bio"),
}
EVENT_COLUMNS = ("user_id", "item_id", "rating", "timestamp", "position", "review_text")
ITEM_COLUMNS = ("item_id", "title", "description", "categories", "brand", "year")
USER_COLUMNS = ("user_id", "biography")


def read_table(path: str | Path) -> pl.DataFrame:
    """Read a file into a frame; the kind of file follows from its name.

    `.tsv` (no quoting), `.csv`, `.jsonl`/`.json` (a record a line), each also with `.gz`, and `.parquet`. Text tables
    keep each cell as text, so that the id 007 stays 007; Parquet keeps its types.

    Raises:
        ValueError: there is no such file, it is of another kind, or it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        if kind == "parquet":
            return pl.read_parquet(path)
        if kind in ("jsonl", "json"):
            return pl.read_ndjson(path, infer_schema_length=None)
        if kind == "csv":
            return pl.read_csv(path, infer_schema=False)
        if kind == "tsv":
            return pl.read_csv(path, infer_schema=False, separator="\t", quote_char=None)
    except (pl.exceptions.PolarsError, OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from error
    raise ValueError(f"{path}: unknown kind of file: name it .tsv, .csv, .jsonl or .parquet (.gz may follow)")


def read_events(path: str | Path) -> pl.DataFrame:
    """Events of a file: `user_id`, `item_id` and those of rating, timestamp, position and review_text that are there.

    Ratings become float64, timestamps int64 seconds (dates as 2024-01-31 are understood), positions int64.

    Raises:
        ValueError: a needed column is missing, an id is empty or a number is not one; the message names file, row, column.
    """
    frame = _columns(read_table(path), path, EVENT_COLUMNS, needed=("user_id", "item_id"))
    if frame.is_empty():
        raise ValueError(f"{path}: the file has a header and no rows")
    for column in ("user_id", "item_id"):
        _refuse(frame, path, column, _empty(column), "an id is needed")
    for column, kind in (("rating", pl.Float64), ("position", pl.Int64)):
        if column in frame.columns:
            frame = _numeric(frame, path, column, pl.col(column).cast(kind, strict=False))
    if "rating" in frame.columns:
        _refuse(frame, path, "rating", pl.col("rating").is_nan(), "a number is needed")
    if "timestamp" in frame.columns:
        frame = _numeric(frame, path, "timestamp", _seconds(frame["timestamp"]), "seconds or a date are needed")
    return frame


def read_items(path: str | Path) -> pl.DataFrame:
    """Items of a file: `item_id` and the text columns that are there, texts "" where empty."""
    return _texts(path, ITEM_COLUMNS, "item_id")


def read_users(path: str | Path) -> pl.DataFrame:
    """Users of a file: `user_id` and the text columns that are there, texts "" where empty."""
    return _texts(path, USER_COLUMNS, "user_id")


def read_split(path: str | Path) -> pl.DataFrame:
    """A split file: `user_id`, `item_id` and columns of parts."""
    table = read_table(path)
    return _columns(table, path, (*EVENT_COLUMNS[:2], *table.columns), needed=("user_id", "item_id"))


def _texts(path: str | Path, wanted: tuple[str, ...], key: str) -> pl.DataFrame:
    frame = _columns(read_table(path), path, wanted, needed=(key,))
    _refuse(frame, path, key, _empty(key), "an id is needed")
    for name in frame.columns:
        while isinstance(kind := frame.schema[name], pl.List):
            nested = isinstance(kind.inner, pl.List)
            flat = (
                pl.col(name).list.eval(pl.element().explode())
                if nested
                else pl.col(name).cast(pl.List(pl.String)).list.join(", ")
            )
            frame = frame.with_columns(flat)
    return frame.with_columns(pl.exclude(key).cast(pl.String).fill_null("").str.strip_chars())


def _columns(frame: pl.DataFrame, path: str | Path, wanted: tuple[str, ...], needed: tuple[str, ...]) -> pl.DataFrame:
    """The wanted columns that the frame has, under this package's names."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(wanted):
        there = next((alias for alias in ALIASES.get(name, (name,)) if alias in frame.columns), None)
        if there is not None and there not in found.values():
            found[name] = there
    for name in needed:
        if name not in found:
            raise ValueError(
                f"{path}: no column for {name}: looked for {', '.join(ALIASES[name])}; the file has {', '.join(frame.columns)}"
            )
    return frame.select(pl.col(there).alias(name) for name, there in found.items())


def _numeric(
    frame: pl.DataFrame, path: str | Path, column: str, numbers: pl.Expr, need: str = "a number is needed"
) -> pl.DataFrame:
    """The column turned into numbers; empty cells stay empty, any other that is not a number is an error."""
    filled = pl.col(column).is_not_null() & (pl.col(column).cast(pl.String) != "")
    _refuse(frame, path, column, filled & numbers.is_null(), need)
    return frame.with_columns(numbers.alias(column))


def _seconds(timestamps: pl.Series) -> pl.Expr:
    """Timestamps as whole seconds; text may hold numbers or dates."""
    column = pl.col("timestamp")
    if timestamps.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("s")
    numbers = column.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
    if timestamps.dtype != pl.String or timestamps.to_frame().select(numbers.is_not_null().all()).item():
        return numbers
    return pl.coalesce(numbers, column.str.to_datetime(strict=False, time_unit="us", time_zone="UTC").dt.epoch("s"))


def _empty(column: str) -> pl.Expr:
    """Whether an id is missing or blank."""
    text = pl.col(column).cast(pl.String)
    return text.is_null() | (text.str.strip_chars() == "")


def _refuse(frame: pl.DataFrame, path: str | Path, column: str, bad: pl.Expr, need: str) -> None:
    """An error that names the first bad row (the first row below the header is row 1)."""
    rows = frame.select(bad.fill_null(False).alias("bad"))["bad"].arg_true()
    if len(rows):
        value = frame[column][int(rows[0])]
        raise ValueError(f"{path}, row {rows[0] + 1}, column {column}: {value!r}: {need} ({len(rows):,} such rows)")
