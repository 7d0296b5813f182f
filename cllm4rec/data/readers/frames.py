"""Frames in memory -> Polars: pandas, Arrow, Polars itself. Neither pandas nor Arrow is imported."""

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.readers.raw import RawTable, row_number, series_of
from cllm4rec.messages import printable


def raw_frame(frame: Any, name: str, wanted: set[str] | None = None) -> RawTable:
    """A frame as a raw table.

    Args:
        frame: a pandas, Polars or Arrow table; pandas' missing values (NaN, NaT, NA) are empty cells.
        name: what it is, for errors: "the events".
        wanted: the columns to keep, all if not given.

    Raises:
        ValueError: it is something else, or has two columns of one name.
    """
    if type(frame).__module__.split(".")[0] == "pandas" and hasattr(frame, "columns"):
        frame = _from_pandas(frame, name, wanted)
    elif isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    elif not isinstance(frame, pl.DataFrame):
        if not hasattr(frame, "__arrow_c_stream__"):
            raise ValueError(f"{name}: a pandas, Polars or Arrow table is needed, not {type(frame).__name__}")
        try:
            frame = pl.DataFrame(frame)
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: cannot be read as a table: {str(error).splitlines()[0]}") from error
    kept = [column for column in frame.columns if wanted is None or column in wanted]
    return RawTable(frame.select(kept), name, frame.columns, row_number)


def _from_pandas(frame: Any, name: str, wanted: set[str] | None) -> pl.DataFrame:
    names = [str(column) for column in frame.columns]
    twice = next((name for name, n in Counter(names).items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"{name}: there are two columns {printable(twice)}: rename one")
    columns = {}
    for place, column in enumerate(names):
        keep = wanted is None or column in wanted
        columns[column] = (
            _pandas_column(frame.iloc[:, place]) if keep else pl.Series([None] * len(frame), dtype=pl.Null)
        )
    return pl.DataFrame(columns)


def _pandas_column(column: Any) -> pl.Series:
    """A column of pandas; which of its values are missing is for pandas to say."""
    missing = column.isna().to_numpy(dtype=bool)
    if type(column.dtype).__name__ == "DatetimeTZDtype":
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufMm":
        values = column.to_numpy()
        units = {"M": "datetime64[us]", "m": "timedelta64[us]"}
        series = pl.Series(values.astype(units.get(column.dtype.kind, values.dtype)))
        return series.to_frame("one").select(pl.when(pl.Series(~missing)).then("one"))["one"]
    cells = [None if gone else value for value, gone in zip(column.tolist(), missing.tolist(), strict=True)]
    return series_of([value.item() if isinstance(value, np.generic) else value for value in cells])
