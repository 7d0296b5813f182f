"""One column of a raw table -> ids, texts, numbers or seconds; what is none of these is refused by row and value."""

import datetime
from typing import Any

import polars as pl

from cllm4rec.data.jsonlines import flat
from cllm4rec.data.raw import EXACT, Raw

NO_ID, NO_KIND = "an id is needed", "a text or a whole number is needed"
LATEST = 1e11  # seconds, in the year 5138; a timestamp above it is in milliseconds (of 1973 and later)
DATES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")


def ids(raw: Raw, column: str) -> pl.Series:
    """External ids: Int64 where all are whole numbers, else text, as it stands."""
    series = raw.frame[column]
    if series.dtype == pl.Object:
        values = series.to_list()
        raw.refuse(
            column, pl.Series([value is None or (isinstance(value, str) and not value.strip()) for value in values]), NO_ID
        )
        found = [_id(value) for value in values]
        raw.refuse(column, pl.Series([one is None for one in found]), NO_KIND)
        texts_of_all = pl.Series([str(one) for one in found], dtype=pl.String)
        return texts_of_all if any(isinstance(one, str) for one in found) else _whole(texts_of_all)
    blank = series.is_null()
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        raw.refuse(column, blank | (series.str.strip_chars() == ""), NO_ID)
        return series
    if series.dtype.is_decimal():
        series = series.cast(pl.Float64)
    if series.dtype.is_float():
        raw.refuse(column, blank | series.is_nan(), NO_ID)
        raw.refuse(column, ~(series.is_finite() & (series == series.floor()) & (series.abs() <= EXACT)), NO_KIND)
        return series.cast(pl.Int64)
    raw.refuse(column, blank, NO_ID)
    if not series.dtype.is_integer():
        raw.refuse(column, ~blank, NO_KIND)
        return series.cast(pl.String)  # without a row
    return _whole(series)


def _id(value: Any) -> str | int | None:
    """A value as an id, or None where it cannot be one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else None
    return value if _stored(str(value)) == str(value) else None


def _whole(series: pl.Series) -> pl.Series:
    """Whole numbers as Int64; as text where one is too large for that."""
    numbers = series.cast(pl.Int64, strict=False)
    return series.cast(pl.String) if numbers.null_count() else numbers


def _stored(text: str) -> str:
    """Text as UTF-8 can hold it: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def texts(raw: Raw, column: str, between: str = " ") -> pl.Series:
    """Texts, "" where there is none; a list of texts becomes one with `between` between them."""
    series = raw.frame[column]
    need = "a text or a list of texts is needed"
    if series.dtype.is_float():
        whole = (series == series.floor()) & (series.abs() <= EXACT)
        series = series.cast(pl.Int64, strict=False).cast(pl.String) if whole.all() else series.cast(pl.String)
    elif series.dtype == pl.Object or series.dtype.is_nested():
        values = [flat(value, between) if isinstance(value, list) else value for value in series.to_list()]
        kinds = (str, int, float, datetime.date, type(None))
        raw.refuse(column, pl.Series([not isinstance(value, kinds) for value in values], dtype=pl.Boolean), need)
        series = pl.Series([None if value is None else _stored(str(value)) for value in values], dtype=pl.String)
    elif series.dtype == pl.Binary:
        raw.refuse(column, series.is_not_null(), need)
    return series.cast(pl.String).fill_null("").str.strip_chars()


def _cells(raw: Raw, column: str, need: str) -> pl.Series:
    """A column that shall hold numbers: as it is, or as stripped text, null where empty."""
    series = raw.frame[column]
    if series.dtype == pl.Object:
        series = pl.Series([_cell(value) for value in series.to_list()], dtype=pl.String)
    elif not (series.dtype.is_numeric() or series.dtype in (pl.String, pl.Date, pl.Datetime, pl.Null)):
        raw.refuse(column, series.is_not_null(), need)
        series = pl.Series([None] * len(series), dtype=pl.Null)
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        return series.set(series == "", None)
    return series


def _cell(value: Any) -> str | None:
    if isinstance(value, datetime.date):  # a datetime is one too
        return value.isoformat()
    return None if value is None else _stored(str(value))


def numbers(raw: Raw, column: str, whole: bool = False) -> pl.Series:
    """Finite float64, or int64 if `whole`; null where the cell is empty."""
    need = "a whole number is needed" if whole else "a number is needed"
    cells = _cells(raw, column, need)
    if cells.dtype in (pl.Date, pl.Datetime):
        raw.refuse(column, cells.is_not_null(), need)
    values = cells.cast(pl.Float64, strict=False)
    good = values.is_finite()
    if whole:
        good &= (values == values.floor()) & (values.abs() <= EXACT)
    raw.refuse(column, cells.is_not_null() & ~good.fill_null(False), need)
    return values.cast(pl.Int64) if whole else values


def seconds(raw: Raw, column: str) -> pl.Series:
    """Timestamps as int64 seconds: of seconds or milliseconds (value by value), dates as ISO 8601 writes them; null
    where the cell is empty. A date without a zone is UTC."""
    need = "seconds, milliseconds or a date as 2024-01-31 10:00:00 are needed"
    cells = _cells(raw, column, need)
    if cells.dtype in (pl.Date, pl.Datetime):
        values = cells.cast(pl.Datetime("us"), strict=False).dt.epoch("s").cast(pl.Float64)
    else:
        values = cells.cast(pl.Float64, strict=False)
        values = (values / 1000).zip_with(values.abs() > LATEST, values)
    left = cells.is_not_null() & values.is_null()
    if cells.dtype == pl.String and left.any():
        values = _dates(cells).zip_with(left, values)
    good = values.is_finite() & (values.abs() <= LATEST)
    raw.refuse(column, cells.is_not_null() & ~good.fill_null(False), need)
    return values.floor().cast(pl.Int64)


def _dates(cells: pl.Series) -> pl.Series:
    """Seconds of dates, float64, null for what is no date."""
    usual = pl.coalesce(pl.col("d").str.to_datetime(form, strict=False, time_unit="us") for form in DATES)
    values = cells.to_frame("d").select(usual.dt.epoch("s").cast(pl.Float64))["d"]
    others = cells.filter(values.is_null()).drop_nulls().unique()
    known = {text: moment for text in others.to_list() if (moment := _moment(text)) is not None}
    found = cells.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Float64)
    return values.fill_null(found) if known else values


def _moment(text: str) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds()


def id_lists(raw: Raw, column: str) -> pl.Series:
    """Ids in order, lists of text: of text with spaces between, or of a list; at least one in each row."""
    series, need = raw.frame[column], "item ids with spaces between are needed"
    if series.dtype == pl.String:
        lists = series.str.strip_chars().str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    else:
        values = [_id_list(value) for value in series.to_list()]
        raw.refuse(column, pl.Series([value is None for value in values], dtype=pl.Boolean), need)
        lists = pl.Series(values, dtype=pl.List(pl.String))
    raw.refuse(column, lists.is_null() | (lists.list.len() == 0), need)
    return lists


def _id_list(value: Any) -> list[str] | None:
    if isinstance(value, str | int) and not isinstance(value, bool):
        value = str(value).split()  # a sequence of one id
    if not isinstance(value, list) or any(_id(one) is None or not str(one).strip() for one in value):
        return None
    return [str(_id(one)) for one in value]
