"""A table in several files of a folder, as Spark and `recommend` under a launcher write it."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl

from cllm4rec.data.readers.raw import MAX_EXACT_INTEGER, RawTable, concatenate
from cllm4rec.messages import printable


def table_files(folder: Path) -> list[Path]:
    """The files of a table in order of names. Checksums and names that begin with `_` or `.` are skipped.

    Raises:
        ValueError: there are none, or the folder holds more than the files of one table.
    """
    if (folder / "_delta_log").is_dir():
        way_out = "its log tells which files count: export it as Parquet"
        raise ValueError(f"{folder}: a Delta table, and {way_out}")
    files = sorted(
        path for path in folder.iterdir() if not path.name.startswith(("_", ".")) and path.suffix != ".crc"
    )
    inner = next((path for path in files if not path.is_file()), None)
    if inner is not None:
        reason = f"expected the files of one table, and {inner.name} is not a file"
        raise ValueError(f"{folder}: {reason}: put all into one folder")
    if not files:
        raise ValueError(f"{folder}: the folder holds no table: name a file, or a folder of part files")
    by_suffix = {
        path.name.lower().removesuffix(".gz").rpartition(".")[2] if "." in path.name else "": path
        for path in files
    }
    if len(by_suffix) > 1:
        names = " and ".join(path.name for path in list(by_suffix.values())[:2])
        raise ValueError(f"{folder}: its files are not of one table ({names}): name one file")
    return files


def concatenate_tables(folder: Path, tables: Sequence[RawTable], same_columns: bool) -> RawTable:
    """The rows of all tables, in order.

    Args:
        folder: for errors.
        tables: at least one.
        same_columns: the tables must have the same columns, of types that can be joined. Otherwise a
            missing column is empty.

    Raises:
        ValueError: the tables differ in their columns or types.
    """
    names = dict.fromkeys(name for table in tables for name in table.columns)  # an ordered set
    for table in tables if same_columns else ():
        if len(table.columns) < len(names):
            missing = next(name for name in names if name not in set(table.columns))
            other = next(other.name for other in tables if missing in other.columns)
            reason = f"{Path(table.name).name} has no column {printable(missing)}, and {Path(other).name} has"
            raise ValueError(f"{folder}: {reason}: write the files with the same columns")
    kept_names = dict.fromkeys(name for table in tables for name in table.frame.columns)
    columns = [_concatenate_column(folder, name, tables, same_columns).alias(name) for name in kept_names]
    first_rows = [0, *accumulate(len(table.frame) for table in tables)]

    def locate(row: int) -> str:
        index = bisect_right(first_rows, row) - 1
        return f"{Path(tables[index].name).name}, {tables[index].locate(row - first_rows[index])}"

    return RawTable(pl.DataFrame(columns), str(folder), list(names), locate, tables[0].column_advice)


def _concatenate_column(folder: Path, name: str, tables: Sequence[RawTable], same_types: bool) -> pl.Series:
    """A column of all tables. Numbers of several types get a type that holds all of them exactly."""
    pieces = [table.frame[name] if name in table.frame.columns else _nulls(table) for table in tables]
    types = {piece.dtype for piece in pieces} - {pl.Null()}
    if len(types) < 2 or pl.Object() in types or not same_types:
        return concatenate(pieces)
    is_text = [dtype in (pl.String, pl.Categorical, pl.Enum) for dtype in types]
    if all(is_text):
        return pl.concat([piece.cast(pl.String) for piece in pieces])
    if not any(is_text) and _join_exactly(pieces):
        try:
            return pl.concat([piece.to_frame("") for piece in pieces], how="vertical_relaxed")[""]
        except pl.exceptions.PolarsError:
            pass
    left = next(table for table in tables if table.frame[name].dtype != pl.Null)
    right = next(
        table for table in tables if table.frame[name].dtype not in (pl.Null, left.frame[name].dtype)
    )
    both = " and ".join(f"{table.frame[name].dtype} in {Path(table.name).name}" for table in (left, right))
    raise ValueError(f"{folder}: column {printable(name)} is {both}: write the files with one type")


def _join_exactly(pieces: Sequence[pl.Series]) -> bool:
    """Whether a type of all pieces holds their whole numbers exactly: a float may not, above 2^53."""
    integers = [piece.drop_nulls() for piece in pieces if piece.dtype.is_integer()]
    has_float = any(piece.dtype.is_float() for piece in pieces)
    if has_float or pl.UInt64 in {piece.dtype for piece in integers}:
        return all(piece.is_between(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER).all() for piece in integers)
    return True


def _nulls(table: RawTable) -> pl.Series:
    return pl.Series([None] * len(table.frame), dtype=pl.Null)
