"""Rows without a user or item id: dropped and counted if the caller asks for it."""

from dataclasses import replace

import polars as pl

from cllm4rec.data.readers.columns import is_missing_id
from cllm4rec.data.readers.missing import with_nulls
from cllm4rec.data.readers.raw import RawTable


def drop_incomplete_rows(raw: RawTable, columns: list[str], drop: bool) -> tuple[RawTable, dict[str, int]]:
    """Drop the rows that lack an id in any of the columns.

    Args:
        raw: the table.
        columns: columns of ids or of sequences. The first is that of users, or the only one.
        drop: drop such rows. Otherwise all rows are kept, to be refused later.

    Returns:
        the table, and the numbers of `events`, `users` and `items` dropped; empty if none.
    """
    cells = [with_nulls(raw.frame[column]) for column in columns]
    missing = [is_missing_id(series) for series in cells]
    is_incomplete = missing[0] | missing[-1]
    if not drop or not is_incomplete.any():
        return raw, {}
    kept_rows = (~is_incomplete).arg_true()
    n_lost = [_n_lost(series, absent, is_incomplete) for series, absent in zip(cells, missing, strict=True)]
    kept = replace(
        raw, frame=raw.frame.filter(~is_incomplete), locate=lambda row: raw.locate(int(kept_rows[row]))
    )
    return kept, {"events": int(is_incomplete.sum()), "users": n_lost[0], "items": n_lost[-1]}


def _n_lost(cells: pl.Series, is_missing: pl.Series, is_dropped: pl.Series) -> int:
    """The number of distinct ids that occur in dropped rows only; a sequence counts as one id."""
    if cells.dtype == pl.Object or cells.dtype.is_nested():
        cells = pl.Series([None if value is None else str(value) for value in cells])
    return cells.filter(~is_missing).n_unique() - cells.filter(~is_dropped).n_unique()
