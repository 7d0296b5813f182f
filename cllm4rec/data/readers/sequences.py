"""Sequences of items beside a target: the history of an event as further events before it."""

import polars as pl

from cllm4rec.data.readers.columns import id_lists, written_ids
from cllm4rec.data.readers.missing import present
from cllm4rec.data.readers.raw import RawTable

ORDER = ("position", "timestamp")
SEPARATORS = (" ", ",", "|")  # between the ids of a history that is text


def history_lists(raw: RawTable, column: str, items: pl.Series, named: bool) -> pl.Series | None:
    """The ids of the histories beside a target, lists of text; None where the column holds something else.

    Text is split by that of the `SEPARATORS` which gives the most target items; without any it is no history. Numbers
    are none either, such as a count of events.

    Args:
        raw, column: the cells.
        items: ids of the targets.
        named: the user says that the column holds histories.
    """
    cells = present(raw.frame[column])
    if cells.dtype == pl.Object and not any(isinstance(value, list) for value in cells):
        cells = pl.Series([None if value is None else str(value) for value in cells], dtype=pl.String)
    if cells.dtype != pl.String:
        held = named or cells.dtype == pl.Object or cells.dtype.is_nested()
        return id_lists(raw, column, empty=True) if held else None
    if not named and cells.str.strip_chars().str.contains(r"^([-+]?\d+(\.\d+)?)?$").all():
        return None
    targets = items.unique().cast(pl.String).implode()
    if cells.str.starts_with("[").any():
        ids = pl.Series([one for text in cells.drop_nulls() for one in written_ids(text)], dtype=pl.String)
        return id_lists(raw, column, empty=True) if named or ids.is_in(targets).any() else None
    most, best = 0, None
    for separator in SEPARATORS:
        if separator == " " or cells.str.contains(separator, literal=True).any():
            lists = _split(cells, separator)
            n_targets = int(lists.explode().is_in(targets).sum())
            if n_targets > most:
                most, best = n_targets, lists
    return id_lists(raw, column, empty=True) if best is None and named else best


def _split(cells: pl.Series, separator: str) -> pl.Series:
    """The parts of each text without spaces around them; none of an empty cell."""
    part = pl.element().str.strip_chars()
    return cells.fill_null("").str.split(separator).list.eval(part.filter(part != ""))


def with_histories(events: pl.DataFrame) -> pl.DataFrame:
    """Events and those of their histories that have no row.

    A history holds a user's items before the target, in order. Each of them that is no target of the same user becomes
    an event right before the earliest target whose history holds it. It has no rating, time or review. All events get
    positions: a user's targets by position, then timestamp, then row.

    Args:
        events: `user_id`, `item_id`, `item_ids` (lists of text, maybe empty) and other columns.
    """
    there = [name for name in ORDER if name in events.columns]
    targets = events.sort(there, nulls_last=False, maintain_order=True) if there else events
    targets = targets.with_columns(
        _target=pl.int_range(pl.len(), dtype=pl.Int64), _place=pl.lit(None, dtype=pl.Int64)
    )
    past = targets.select(
        "user_id", "_target", "item_ids", _place=pl.int_ranges(pl.col("item_ids").list.len(), dtype=pl.Int64)
    )
    past = (
        past.filter(pl.col("item_ids").list.len() > 0)
        .explode("item_ids", "_place")
        .rename({"item_ids": "item_id"})
    )
    past = past.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    kind = events.schema["item_id"]
    if kind == pl.Int64:
        numbers = past["item_id"].cast(pl.Int64, strict=False)
        if numbers.null_count():
            targets = targets.with_columns(pl.col("item_id").cast(pl.String))
        else:
            past = past.with_columns(numbers.alias("item_id"))
    past = past.join(targets, on=["user_id", "item_id"], how="anti", maintain_order="left")
    together = pl.concat([past, targets.drop("item_ids")], how="diagonal")
    ordered = together.sort("_target", "_place", nulls_last=True, maintain_order=True)
    columns = [name for name in events.columns if name != "item_ids"]
    return ordered.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64)).select(
        *columns, *(["position"] if "position" not in columns else [])
    )
