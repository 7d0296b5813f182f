"""One column of a raw table -> ids, texts, numbers or lists of ids; other values are refused by row and value."""

import ast
import datetime
import json
import math
from typing import Any

import polars as pl

from cllm4rec.data.readers.json_lines import flat
from cllm4rec.data.readers.missing import number_text, plain, present, without_words
from cllm4rec.data.readers.raw import EXACT, RawTable

NO_ID, NO_KIND = "an id is needed", "a text or a whole number is needed"
NO_NUMBER = "a number is needed"
NO_IDS = "item ids with spaces between are needed"
OTHER_SEPARATOR = "item ids with spaces between are needed, and no cell of the column has a space"


def ids(raw: RawTable, column: str, way_out: str = "") -> pl.Series:
    """External ids: Int64 where all are whole numbers, else text, as it is.

    Args:
        raw, column: the cells.
        way_out: what can be done about missing ids, for the error.
    """
    series = present(raw.frame[column])
    raw.refuse(column, missing_ids(series), NO_ID + way_out)
    if series.dtype == pl.Object:
        found = [_id(value) for value in series.to_list()]
        raw.refuse(column, pl.Series([one is None for one in found]), NO_KIND)
        texts_of_all = pl.Series([str(one) for one in found], dtype=pl.String)
        return texts_of_all if any(isinstance(one, str) for one in found) else _whole(texts_of_all)
    if series.dtype == pl.String:
        return series
    if series.dtype.is_float():
        raw.refuse(
            column, ~(series.is_finite() & (series == series.floor()) & (series.abs() <= EXACT)), NO_KIND
        )
        return series.cast(pl.Int64)
    if not series.dtype.is_integer():
        raw.refuse(column, series.is_not_null(), NO_KIND)
        return series.cast(pl.String)  # without a row
    return _whole(series)


def missing_ids(cells: pl.Series) -> pl.Series:
    """Where there is no id: a missing or a blank cell, or an empty list."""
    if cells.dtype == pl.Object:
        return pl.Series(
            [
                value is None or value == [] or (isinstance(value, str) and not value.strip())
                for value in cells
            ]
        )
    if cells.dtype == pl.List:
        return cells.is_null() | (cells.list.len() == 0)
    return cells.is_null() | (cells.str.strip_chars() == "") if cells.dtype == pl.String else cells.is_null()


def _id(value: Any) -> str | int | None:
    """A value as an id, or None where it cannot be one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else None
    return value if stored(str(value)) == str(value) else None


def _whole(series: pl.Series) -> pl.Series:
    """Whole numbers as Int64; as text where one is too large for that."""
    numbers = series.cast(pl.Int64, strict=False)
    return series.cast(pl.String) if numbers.null_count() else numbers


def stored(text: str) -> str:
    """Text as UTF-8 can hold it: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def texts(raw: RawTable, column: str, between: str = " ") -> pl.Series:
    """Texts, "" where there is none; a list of texts becomes one with `between` between them.

    A whole float is written as a whole number: a table makes floats of whole numbers where one is missing.
    """
    series = present(raw.frame[column])
    need = "a text or a list of texts is needed"
    if series.dtype.is_float():
        raw.refuse(column, series.is_infinite(), need)
        whole = (series == series.floor()) & (series.abs() <= EXACT)
        series = series.cast(pl.String).zip_with(~whole, series.cast(pl.Int64, strict=False).cast(pl.String))
    elif series.dtype == pl.Object or series.dtype.is_nested():
        series = pl.Series(_joined_texts(raw, column, series, between, need), dtype=pl.String)
    elif series.dtype == pl.Binary:
        raw.refuse(column, series.is_not_null(), need)
    return series.cast(pl.String).fill_null("").str.strip_chars()


def _joined_texts(raw: RawTable, column: str, series: pl.Series, between: str, need: str) -> list[str | None]:
    """Texts of Python's values and of lists."""
    plain_values = [plain(value) for value in series.to_list()]
    values = [flat(value, between) if isinstance(value, list) else value for value in plain_values]
    kinds = (str, int, float, datetime.date, type(None))
    bad = [not isinstance(value, kinds) or value in (math.inf, -math.inf) for value in values]
    raw.refuse(column, pl.Series(bad, dtype=pl.Boolean), need)
    return [
        None if value is None else number_text(value) if isinstance(value, float) else stored(str(value))
        for value in values
    ]


def number_cells(raw: RawTable, column: str, need: str = NO_NUMBER) -> pl.Series:
    """A column that should hold numbers or times: typed, or as stripped text; null where a cell is missing."""
    series = present(raw.frame[column])
    if series.dtype == pl.Object:
        series = pl.Series([_cell(value) for value in series.to_list()], dtype=pl.String)
    elif not (
        series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype in (pl.String, pl.Null)
    ):
        raw.refuse(column, series.is_not_null(), need)
        series = pl.Series([None] * len(series), dtype=pl.Null)
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        series = series.set(series == "", None)
        return without_words(series)
    return series


def _cell(value: Any) -> str | None:
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    return None if value is None else stored(str(value))


def numbers(raw: RawTable, column: str, whole: bool = False) -> pl.Series:
    """Finite float64, or int64 if `whole`; null where the cell is missing."""
    need = "a whole number is needed" if whole else NO_NUMBER
    cells = number_cells(raw, column, need)
    if cells.dtype.is_temporal():
        raw.refuse(column, cells.is_not_null(), need)
    values = cells.cast(pl.Float64, strict=False)
    good = values.is_finite()
    if whole:
        good &= (values == values.floor()) & (values.abs() <= EXACT)
    raw.refuse(column, cells.is_not_null() & ~good.fill_null(False), need)
    return values.cast(pl.Int64) if whole else values


def id_lists(raw: RawTable, column: str, empty: bool = False) -> pl.Series:
    """Ids in order, lists of text: of a list, or of text with spaces between or that is a list as JSON or Python write it.

    Args:
        raw, column: the cells.
        empty: a list may be empty or missing; if not, it needs one id.
    """
    series = present(raw.frame[column])
    if series.dtype == pl.String and not series.str.starts_with("[").any():
        texts_of_all = series.str.strip_chars()
        if not texts_of_all.str.contains(" ", literal=True).any():
            raw.refuse(column, texts_of_all.str.contains(r"[^,|][,|]+[^,|]"), OTHER_SEPARATOR)
        lists = texts_of_all.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    elif series.dtype in (pl.List(pl.String), pl.List(pl.Int64)):
        lists = series.cast(pl.List(pl.String))
        parts = lists.explode(empty_as_null=False, keep_nulls=False)
        if parts.null_count() or (parts.str.strip_chars() == "").any():
            blank = pl.element().is_null() | (pl.element().str.strip_chars() == "")
            raw.refuse(column, lists.list.eval(blank).list.any(), NO_IDS)
    else:
        values = [_id_list(plain(value)) for value in series.to_list()]
        raw.refuse(column, pl.Series([value is None for value in values], dtype=pl.Boolean), NO_IDS)
        lists = pl.Series(values, dtype=pl.List(pl.String))
    if empty:
        return lists.fill_null(pl.Series([[]], dtype=pl.List(pl.String)))
    raw.refuse(column, lists.is_null() | (lists.list.len() == 0), NO_IDS)
    return lists


def _id_list(value: Any) -> list[str] | None:
    """The ids of a value, or None where it is no list of ids."""
    if value is None:
        return []
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = _written_list(str(value)) if isinstance(value, str) else [value]
    if not isinstance(value, list) or any(_id(one) is None or not str(one).strip() for one in value):
        return None
    return [str(_id(one)) for one in value]


def written_ids(text: str) -> list[str]:
    """The ids of a list that is written as text; none if it is no list of ids."""
    return _id_list(text) or []


def _written_list(text: str) -> Any:
    """A list that is written as text: ['a', 'b'] and ["a", "b"] and [1 2] as NumPy has it; else the words of the text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return text.split()
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    words = text[1:-1].split()
    return words if all(word.isalnum() for word in words) else None
