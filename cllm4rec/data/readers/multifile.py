"""A table in parts: the files of one folder, as Spark and `recommend` under a launcher write them."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl

from cllm4rec.data.readers.raw import EXACT, RawTable, joined
from cllm4rec.messages import printable


def part_files(folder: Path) -> list[Path]:
    """The parts of a table in order of their names; check sums, and names from `_` or `.` on, are passed over.

    Raises:
        ValueError: there are none, or the folder holds more than parts of one table.
    """
    if (folder / "_delta_log").is_dir():
        raise ValueError(f"{folder}: a Delta table, whose log says which files count: export it as Parquet")
    found = sorted(
        path for path in folder.iterdir() if not path.name.startswith(("_", ".")) and path.suffix != ".crc"
    )
    inner = next((path for path in found if not path.is_file()), None)
    if inner is not None:
        raise ValueError(
            f"{folder}: parts of a table are needed, and {inner.name} is not a file: put all into one folder"
        )
    if not found:
        raise ValueError(f"{folder}: a folder without parts of a table")
    kinds = {
        path.name.lower().removesuffix(".gz").rpartition(".")[2] if "." in path.name else "": path
        for path in found
    }
    if len(kinds) > 1:
        names = " and ".join(path.name for path in list(kinds.values())[:2])
        raise ValueError(f"{folder}: its files are not parts of one table ({names}): name one file")
    return found


def joined_parts(folder: Path, parts: Sequence[RawTable], typed: bool) -> RawTable:
    """The rows of all parts.

    Args:
        folder: where they are, for errors.
        parts: at least one.
        typed: each needs the same columns, of types that can be joined. Otherwise a missing column is empty.

    Raises:
        ValueError: the parts differ in their columns or types.
    """
    first, names = parts[0], dict.fromkeys(name for part in parts for name in part.columns)
    for part in parts if typed else ():
        if len(part.columns) < len(names):
            missing = next(name for name in names if name not in set(part.columns))
            holder = next(one.name for one in parts if missing in one.columns)
            files = f"{Path(part.name).name} has no column {printable(missing)}, and {Path(holder).name} has"
            raise ValueError(f"{folder}: {files}: write the parts with the same columns")
    held = dict.fromkeys(name for part in parts for name in part.frame.columns)
    columns = [_column(folder, name, parts, typed).alias(name) for name in held]
    starts = [0, *accumulate(len(part.frame) for part in parts)]

    def where(row: int) -> str:
        number = bisect_right(starts, row) - 1
        return f"{Path(parts[number].name).name}, {parts[number].where(row - starts[number])}"

    return RawTable(pl.DataFrame(columns), str(folder), list(names), where, first.hint)


def _column(folder: Path, name: str, parts: Sequence[RawTable], typed: bool) -> pl.Series:
    """A column of all parts. Numbers of several types get a type that holds all of them exactly."""
    series = [part.frame[name] if name in part.frame.columns else _nothing(part) for part in parts]
    kinds = {one.dtype for one in series} - {pl.Null()}
    if len(kinds) < 2 or pl.Object() in kinds or not typed:
        return joined(series)
    texts = [kind in (pl.String, pl.Categorical, pl.Enum) for kind in kinds]
    if all(texts):
        return pl.concat([one.cast(pl.String) for one in series])
    if not any(texts) and _exact(series):
        try:
            return pl.concat([one.to_frame("") for one in series], how="vertical_relaxed")[""]
        except pl.exceptions.PolarsError:
            pass
    first = next(part for part in parts if part.frame[name].dtype != pl.Null)
    other = next(part for part in parts if part.frame[name].dtype not in (pl.Null, first.frame[name].dtype))
    types = [f"{part.frame[name].dtype} in {Path(part.name).name}" for part in (first, other)]
    raise ValueError(
        f"{folder}: column {printable(name)} is {' and '.join(types)}: write the parts with one type"
    )


def _exact(series: Sequence[pl.Series]) -> bool:
    """Whether whole numbers stay what they are in a type for all: a float may not hold those above 2^53."""
    whole = [one.drop_nulls() for one in series if one.dtype.is_integer()]
    if any(one.dtype.is_float() for one in series) or pl.UInt64 in {one.dtype for one in whole}:
        return all(one.is_between(-EXACT, EXACT).all() for one in whole)
    return True


def _nothing(part: RawTable) -> pl.Series:
    return pl.Series([None] * len(part.frame), dtype=pl.Null)
