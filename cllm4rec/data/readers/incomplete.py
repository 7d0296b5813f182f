"""Rows without a user or an item: dropped and counted where that is asked for."""

from dataclasses import replace

import polars as pl

from cllm4rec.data.readers.columns import missing_ids
from cllm4rec.data.readers.missing import present
from cllm4rec.data.readers.raw import RawTable


def complete_rows(raw: RawTable, columns: list[str], drop: bool) -> tuple[RawTable, dict[str, int]]:
    """The rows that have an id in all columns, if the others should be dropped.

    Args:
        raw: the table.
        columns: of ids or of sequences; the first is the users' or, alone, that of any table.
        drop: drop rows without an id; if not, all rows stay and are refused later.

    Returns:
        the table, and how many `events`, `users` and `items` were dropped; empty if none.
    """
    cells = [present(raw.frame[column]) for column in columns]
    missing = [missing_ids(series) for series in cells]
    gone = missing[0] | missing[-1]
    if not drop or not gone.any():
        return raw, {}
    rows = (~gone).arg_true()
    lost = [_n_lost(series, absent, gone) for series, absent in zip(cells, missing, strict=True)]
    kept = replace(raw, frame=raw.frame.filter(~gone), where=lambda row: raw.where(int(rows[row])))
    return kept, {"events": int(gone.sum()), "users": lost[0], "items": lost[-1]}


def _n_lost(cells: pl.Series, missing: pl.Series, gone: pl.Series) -> int:
    """How many ids occur in dropped rows alone; a sequence counts as one."""
    as_text = cells.dtype == pl.Object or cells.dtype.is_nested()
    texts = pl.Series([None if value is None else str(value) for value in cells]) if as_text else cells
    return texts.filter(~missing).n_unique() - texts.filter(~gone).n_unique()
