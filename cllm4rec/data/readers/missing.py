"""Which cells are missing: decided here alone, for every reader and every kind of column."""

import decimal
import math
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.readers.raw import series_of

NULL = r"\N"  # a missing cell as MySQL, PostgreSQL, Hive and IMDb write it
WORDS = (
    "nan",
    "-nan",
    "null",
    "none",
    "nil",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "nat",
)  # missing numbers and times, any case


def is_missing(value: Any) -> bool:
    """Whether a Python value stands for none: None, NaN of any type, NaT, pandas' NA."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType") and type(value).__module__.startswith("pandas")


def present(series: pl.Series) -> pl.Series:
    """The column with null where a cell is missing.

    Python's objects become text or numbers where all of them are alike: whole numbers beside a NaN are whole numbers.
    Decimal numbers become whole numbers or floats, categories become text.
    """
    if series.dtype == pl.Object:
        series = series_of([plain(value) for value in series.to_list()])
    elif series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    elif series.dtype.is_decimal():
        series = _without_decimals(series)
    if series.dtype.is_float():
        return series.fill_nan(None)
    if series.dtype == pl.String:
        null = series == NULL
        return series.set(null, None) if null.any() else series
    return series


def plain(value: Any) -> Any:
    """A value of NumPy or a decimal number as a number of Python, sequences as lists, None where it is missing."""
    if isinstance(value, np.ndarray | tuple | pl.Series):
        value = list(value)
    if isinstance(value, list):
        return [plain(part) for part in value]
    if is_missing(value):
        return None
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == int(value) else float(value)
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.datetime64) else value


def number_text(number: int | float) -> str:
    """A number as text; a whole one without a fraction."""
    return (
        str(int(number))
        if isinstance(number, float) and number.is_integer() and abs(number) <= 2**53
        else str(number)
    )


def without_words(texts: pl.Series) -> pl.Series:
    """Texts that should be numbers or times, null where one is a word for a missing value."""
    words = texts.filter(texts.str.contains(r"^(?:-?[Nn]|[<#])")).unique()
    missing = words.filter(words.str.to_lowercase().is_in(WORDS))
    return texts.set(texts.is_in(missing.implode()), None) if len(missing) else texts


def _without_decimals(series: pl.Series) -> pl.Series:
    """Int64 where all are whole and fit, text where one is too large for that, else Float64."""
    floats = series.cast(pl.Float64)
    if not (floats == floats.floor()).all():
        return floats
    digits = series.cast(pl.String).str.replace(r"\.0*$", "")
    whole = digits.cast(pl.Int64, strict=False)
    return digits if whole.null_count() > series.null_count() else whole
