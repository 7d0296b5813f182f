"""Tables in memory: pandas, Arrow and Polars. Neither pandas nor Arrow is imported."""

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.readers.raw import RawTable, row_number, to_series
from cllm4rec.messages import join_names, printable

POLARS_DTYPES = {"M": "datetime64[us]", "m": "timedelta64[us]"}  # NumPy kind -> a resolution of Polars


def raw_frame(frame: Any, name: str, columns: Collection[str] | None = None) -> RawTable:
    """A frame as a raw table.

    Args:
        frame: a pandas, Polars or Arrow table. Missing values of pandas (NaN, NaT, NA) become null.
        name: what it is, for errors: "the events".
        columns: the columns to keep; None: all.

    Raises:
        ValueError: it is something else, or two columns have the same name.
    """
    advice = "; rename the column that holds it"
    if type(frame).__module__.split(".")[0] == "pandas" and hasattr(frame, "columns"):
        advice = _index_advice(frame) or advice
        frame = _from_pandas(frame, name, columns)
    elif isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    elif not isinstance(frame, pl.DataFrame):
        if not hasattr(frame, "__arrow_c_stream__"):
            expected = "expected a pandas, Polars or Arrow table"
            raise ValueError(f"{name}: {expected}, not {type(frame).__name__}")
        try:
            frame = pl.DataFrame(frame)
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: cannot be read as a table: {str(error).splitlines()[0]}") from error
    kept = [column for column in frame.columns if columns is None or column in columns]
    return RawTable(frame.select(kept), name, frame.columns, row_number, advice)


def _index_advice(frame: Any) -> str:
    """Advice about the named levels of an index of pandas, which are not read; "" without any."""
    levels = [str(level) for level in frame.index.names if level is not None]
    return f"; its index holds {join_names(levels)}: give frame.reset_index()" if levels else ""


def _from_pandas(frame: Any, name: str, columns: Collection[str] | None) -> pl.DataFrame:
    """A frame of pandas; columns that are not kept are null."""
    names = [str(column) for column in frame.columns]
    repeated = next((column for column, n in Counter(names).items() if n > 1), None)
    if repeated is not None:
        raise ValueError(f"{name}: there are two columns {printable(repeated)}: rename one")
    series = {}
    for index, column in enumerate(names):
        if columns is None or column in columns:
            series[column] = _from_pandas_column(frame.iloc[:, index])
        else:
            series[column] = pl.Series([None] * len(frame), dtype=pl.Null)
    return pl.DataFrame(series)


def _from_pandas_column(column: Any) -> pl.Series:
    """A column of pandas; pandas itself tells which values are missing."""
    is_missing = column.isna().to_numpy(dtype=bool)
    if type(column.dtype).__name__ == "DatetimeTZDtype":
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufMm":
        values = column.to_numpy()
        series = pl.Series(values.astype(POLARS_DTYPES.get(column.dtype.kind, values.dtype)))
        return series.to_frame("cells").select(pl.when(pl.Series(~is_missing)).then("cells"))["cells"]
    cells = zip(column.tolist(), is_missing.tolist(), strict=True)
    values = [None if missing else value for value, missing in cells]
    return to_series([value.item() if isinstance(value, np.generic) else value for value in values])
