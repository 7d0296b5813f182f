"""Missing values: one rule for every reader and every type of column."""

import decimal
import math
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.readers.raw import MAX_EXACT_INTEGER, to_series

DATABASE_NULL = r"\N"  # written by MySQL, PostgreSQL, Hive and IMDb
# Missing numbers and times as text, in lower case.
MISSING_WORDS = ("nan", "-nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "nat")


def is_missing(value: Any) -> bool:
    """Whether a Python value is None, NaN of any type, NaT or pandas' NA."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType") and type(value).__module__.startswith("pandas")


def with_nulls(series: pl.Series) -> pl.Series:
    """The column with null in missing cells.

    Python objects become text or numbers if all of them are alike; NaN does not make floats of whole
    numbers. Decimal numbers become whole numbers or floats, categories become text.
    """
    if series.dtype == pl.Object:
        series = to_series([to_python(value) for value in series.to_list()])
    elif series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    elif series.dtype.is_decimal():
        series = _without_decimals(series)
    if series.dtype.is_float():
        return series.fill_nan(None)
    if series.dtype == pl.String:
        is_null = series == DATABASE_NULL
        return series.set(is_null, None) if is_null.any() else series
    return series


def to_python(value: Any) -> Any:
    """A NumPy value or decimal number as a Python number, a sequence as a list, a missing value as None."""
    if isinstance(value, np.ndarray | tuple | pl.Series):
        value = list(value)
    if isinstance(value, list):
        return [to_python(element) for element in value]
    if is_missing(value):
        return None
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == int(value) else float(value)
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.datetime64) else value


def number_text(number: int | float) -> str:
    """A number as text; a whole number has no fraction."""
    is_whole = isinstance(number, float) and number.is_integer() and abs(number) <= MAX_EXACT_INTEGER
    return str(int(number)) if is_whole else str(number)


def without_missing_words(texts: pl.Series) -> pl.Series:
    """Numbers or times as text, with null where a word says that the value is missing."""
    candidates = texts.filter(texts.str.contains(r"^(?:-?[Nn]|[<#])")).unique()
    missing = candidates.filter(candidates.str.to_lowercase().is_in(MISSING_WORDS))
    return texts.set(texts.is_in(missing.implode()), None) if len(missing) else texts


def _without_decimals(series: pl.Series) -> pl.Series:
    """Decimals as Int64 if all are whole, as text if one of those is too large, else as Float64."""
    floats = series.cast(pl.Float64)
    if not (floats == floats.floor()).all():
        return floats
    digits = series.cast(pl.String).str.replace(r"\.0*$", "")
    integers = digits.cast(pl.Int64, strict=False)
    return digits if integers.null_count() > series.null_count() else integers
