"""Columns of a raw table as ids, texts, numbers or lists of ids; other cells are refused by row and value."""

import ast
import datetime
import json
import math
from typing import Any

import polars as pl

from cllm4rec.data.readers.missing import (
    is_missing,
    number_text,
    to_python,
    with_nulls,
    without_missing_words,
)
from cllm4rec.data.readers.raw import MAX_EXACT_INTEGER, RawTable

EXPECTED_ID, EXPECTED_ID_TYPE = "expected an id", "expected text or a whole number"
EXPECTED_NUMBER, EXPECTED_WHOLE_NUMBER = "expected a number", "expected a whole number"
EXPECTED_TEXT = "expected text or a list of texts"
EXPECTED_IDS = "expected item ids separated by spaces"
OTHER_SEPARATOR = f"{EXPECTED_IDS}, and no cell of the column holds a space"


def id_column(raw: RawTable, column: str, way_out: str = "") -> pl.Series:
    """External ids: Int64 if all are whole numbers, otherwise text without changes.

    Args:
        raw, column: the cells.
        way_out: what can be done about missing ids, for the error.
    """
    series = with_nulls(raw.frame[column])
    raw.refuse(column, is_missing_id(series), EXPECTED_ID + way_out)
    if series.dtype == pl.Object:
        ids = [_to_id(value) for value in series.to_list()]
        raw.refuse(column, pl.Series([item is None for item in ids]), EXPECTED_ID_TYPE)
        texts = pl.Series([str(item) for item in ids], dtype=pl.String)
        return texts if any(isinstance(item, str) for item in ids) else _integers_if_small(texts)
    if series.dtype == pl.String:
        return series
    if series.dtype.is_float():
        is_whole = series.is_finite() & (series == series.floor()) & (series.abs() <= MAX_EXACT_INTEGER)
        raw.refuse(column, ~is_whole, EXPECTED_ID_TYPE)
        return series.cast(pl.Int64)
    if not series.dtype.is_integer():
        raw.refuse(column, series.is_not_null(), EXPECTED_ID_TYPE)
        return series.cast(pl.String)  # the table has no rows
    return _integers_if_small(series)


def is_missing_id(cells: pl.Series) -> pl.Series:
    """Where a cell holds no id: it is missing, blank or an empty list."""
    if cells.dtype == pl.Object:
        blank = [value == [] or (isinstance(value, str) and not value.strip()) for value in cells]
        return cells.is_null() | pl.Series(blank, dtype=pl.Boolean)
    if cells.dtype == pl.List:
        return cells.is_null() | (cells.list.len() == 0)
    return cells.is_null() | (cells.str.strip_chars() == "") if cells.dtype == pl.String else cells.is_null()


def _to_id(value: Any) -> str | int | None:
    """A value as an id; None if it cannot be one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_INTEGER else None
    return value if encodable(str(value)) == str(value) else None


def _integers_if_small(series: pl.Series) -> pl.Series:
    """Whole numbers as Int64, or all as text if one exceeds 64 bits."""
    integers = series.cast(pl.Int64, strict=False)
    return series.cast(pl.String) if integers.null_count() else integers


def encodable(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def text_column(raw: RawTable, column: str, joiner: str = " ") -> pl.Series:
    """Stripped texts; "" for missing cells.

    A list of texts becomes one text. A whole float is written without a fraction, since tables turn
    whole numbers into floats if one is missing.

    Args:
        raw, column: the cells.
        joiner: separates the texts of a list.
    """
    series = with_nulls(raw.frame[column])
    if series.dtype.is_float():
        raw.refuse(column, series.is_infinite(), EXPECTED_TEXT)
        is_whole = (series == series.floor()) & (series.abs() <= MAX_EXACT_INTEGER)
        integers = series.cast(pl.Int64, strict=False).cast(pl.String)
        series = series.cast(pl.String).zip_with(~is_whole, integers)
    elif series.dtype == pl.Object or series.dtype.is_nested():
        series = pl.Series(_joined_cells(raw, column, series, joiner), dtype=pl.String)
    elif series.dtype == pl.Binary:
        raw.refuse(column, series.is_not_null(), EXPECTED_TEXT)
    return series.cast(pl.String).fill_null("").str.strip_chars()


def _joined_cells(raw: RawTable, column: str, series: pl.Series, joiner: str) -> list[str | None]:
    """The texts of a column of Python objects or of lists."""
    values = [to_python(value) for value in series.to_list()]
    values = [join_texts(value, joiner) if isinstance(value, list) else value for value in values]
    types = (str, int, float, datetime.date, type(None))
    is_bad = [not isinstance(value, types) or value in (math.inf, -math.inf) for value in values]
    raw.refuse(column, pl.Series(is_bad, dtype=pl.Boolean), EXPECTED_TEXT)
    return [
        None if value is None else number_text(value) if isinstance(value, float) else encodable(str(value))
        for value in values
    ]


def join_texts(value: list[Any], joiner: str) -> Any:
    """The texts and numbers of a list, and of lists in it, as one text.

    Missing and empty elements are left out. A list that holds other values is returned as it is.
    """
    pending, texts = [value], []
    while pending:
        element: Any = pending.pop()
        if isinstance(element, list | tuple):
            pending.extend(reversed(element))
        elif isinstance(element, str):
            texts.append(element.strip())
        elif is_missing(element):
            continue
        elif isinstance(element, int | float) and not isinstance(element, bool) and abs(element) != math.inf:
            texts.append(number_text(element))
        else:
            return value
    return joiner.join(text for text in texts if text)


def numeric_cells(raw: RawTable, column: str, expected: str = EXPECTED_NUMBER) -> pl.Series:
    """The cells of a column of numbers or times, typed or as stripped text; null where one is missing."""
    series = with_nulls(raw.frame[column])
    if series.dtype == pl.Object:
        series = pl.Series([_cell_text(value) for value in series.to_list()], dtype=pl.String)
    elif not (
        series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype in (pl.String, pl.Null)
    ):
        raw.refuse(column, series.is_not_null(), expected)
        series = pl.Series([None] * len(series), dtype=pl.Null)
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        series = series.set(series == "", None)
        return without_missing_words(series)
    return series


def _cell_text(value: Any) -> str | None:
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    return None if value is None else encodable(str(value))


def number_column(raw: RawTable, column: str, whole: bool = False) -> pl.Series:
    """Finite float64, or int64 if `whole`; null for missing cells."""
    expected = EXPECTED_WHOLE_NUMBER if whole else EXPECTED_NUMBER
    cells = numeric_cells(raw, column, expected)
    if cells.dtype.is_temporal():
        raw.refuse(column, cells.is_not_null(), expected)
    values = cells.cast(pl.Float64, strict=False)
    is_valid = values.is_finite()
    if whole:
        is_valid &= (values == values.floor()) & (values.abs() <= MAX_EXACT_INTEGER)
    raw.refuse(column, cells.is_not_null() & ~is_valid.fill_null(False), expected)
    return values.cast(pl.Int64) if whole else values


def id_list_column(raw: RawTable, column: str, empty: bool = False) -> pl.Series:
    """Ids in order, as lists of text.

    A cell is a list, text with ids separated by spaces, or a list as JSON or Python write it.

    Args:
        raw, column: the cells.
        empty: lists may be empty or missing. Otherwise each needs an id.
    """
    series = with_nulls(raw.frame[column])
    if series.dtype == pl.String and not series.str.starts_with("[").any():
        texts = series.str.strip_chars()
        if not texts.str.contains(" ", literal=True).any():
            raw.refuse(column, texts.str.contains(r"[^,|][,|]+[^,|]"), OTHER_SEPARATOR)
        lists = texts.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    elif series.dtype in (pl.List(pl.String), pl.List(pl.Int64)):
        lists = series.cast(pl.List(pl.String))
        elements = lists.explode(empty_as_null=False, keep_nulls=False)
        if elements.null_count() or (elements.str.strip_chars() == "").any():
            is_blank = pl.element().is_null() | (pl.element().str.strip_chars() == "")
            raw.refuse(column, lists.list.eval(is_blank).list.any(), EXPECTED_IDS)
    else:
        values = [_to_ids(to_python(value)) for value in series.to_list()]
        raw.refuse(column, pl.Series([value is None for value in values], dtype=pl.Boolean), EXPECTED_IDS)
        lists = pl.Series(values, dtype=pl.List(pl.String))
    if empty:
        return lists.fill_null(pl.Series([[]], dtype=pl.List(pl.String)))
    raw.refuse(column, lists.is_null() | (lists.list.len() == 0), EXPECTED_IDS)
    return lists


def _to_ids(value: Any) -> list[str] | None:
    """The ids of a value; None if it is no list of ids."""
    if value is None:
        return []
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = _parse_list(str(value)) if isinstance(value, str) else [value]
    if not isinstance(value, list) or any(_to_id(item) is None or not str(item).strip() for item in value):
        return None
    return [str(_to_id(item)) for item in value]


def ids_in_text(text: str) -> list[str]:
    """The ids of a list written as text; empty if the text is no list of ids."""
    return _to_ids(text) or []


def _parse_list(text: str) -> Any:
    """The list in a text such as ['a', 'b'], ["a", "b"] or (NumPy) [1 2]; other text is split at spaces."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return text.split()
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    ids = text[1:-1].split()
    return ids if all(item.isalnum() for item in ids) else None
