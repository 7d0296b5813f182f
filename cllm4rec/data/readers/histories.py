"""Histories in the rows of targets: a list of a user's earlier items becomes earlier events."""

import polars as pl

from cllm4rec.data.readers.columns import id_list_column, ids_in_text
from cllm4rec.data.readers.missing import with_nulls
from cllm4rec.data.readers.raw import RawTable

ORDER_COLUMNS = ("position", "timestamp")
SEPARATORS = (" ", ",", "|")  # tried between the ids of a history that is text


def history_column(raw: RawTable, column: str, targets: pl.Series, named: bool) -> pl.Series | None:
    """The ids of the histories as lists of text; None if the column holds something else.

    Text is split by the separator that gives the most target items. Text without any target item is no
    history, and neither are single numbers, such as a count of events.

    Args:
        raw, column: the cells.
        targets: item ids of the rows.
        named: the user says that the column holds histories.
    """
    cells = with_nulls(raw.frame[column])
    if cells.dtype == pl.Object and not any(isinstance(value, list) for value in cells):
        cells = pl.Series([None if value is None else str(value) for value in cells], dtype=pl.String)
    if cells.dtype != pl.String:
        holds_lists = named or cells.dtype == pl.Object or cells.dtype.is_nested()
        return id_list_column(raw, column, empty=True) if holds_lists else None
    if not named and cells.str.strip_chars().str.contains(r"^([-+]?\d+(\.\d+)?)?$").all():
        return None
    target_ids = targets.unique().cast(pl.String).implode()
    if cells.str.starts_with("[").any():
        ids = pl.Series([item for text in cells.drop_nulls() for item in ids_in_text(text)], dtype=pl.String)
        return id_list_column(raw, column, empty=True) if named or ids.is_in(target_ids).any() else None
    most_targets, best = 0, None
    for separator in SEPARATORS:
        if separator == " " or cells.str.contains(separator, literal=True).any():
            lists = _split(cells, separator)
            n_targets = int(lists.explode().is_in(target_ids).sum())
            if n_targets > most_targets:
                most_targets, best = n_targets, lists
    return id_list_column(raw, column, empty=True) if best is None and named else best


def _split(cells: pl.Series, separator: str) -> pl.Series:
    """Each text split into stripped, non-empty ids."""
    item = pl.element().str.strip_chars()
    return cells.fill_null("").str.split(separator).list.eval(item.filter(item != ""))


def with_history_events(events: pl.DataFrame) -> pl.DataFrame:
    """The events, and those of their histories that have no row.

    A history holds a user's items before the target, in order. An item that is no target of the same user
    becomes an event without rating, time and review. It comes just before the earliest target whose history
    holds it. All events get positions; a user's targets are ordered by position, then timestamp, then row.

    Args:
        events: `user_id`, `item_id`, `item_ids` (lists of text, maybe empty) and other columns.
    """
    order = [name for name in ORDER_COLUMNS if name in events.columns]
    targets = events.sort(order, nulls_last=False, maintain_order=True) if order else events
    targets = targets.with_columns(
        _target=pl.int_range(pl.len(), dtype=pl.Int64), _history_index=pl.lit(None, dtype=pl.Int64)
    )
    history_index = pl.int_ranges(pl.col("item_ids").list.len(), dtype=pl.Int64)
    history = targets.select("user_id", "_target", "item_ids", _history_index=history_index)
    history = history.filter(pl.col("item_ids").list.len() > 0).explode("item_ids", "_history_index")
    history = history.rename({"item_ids": "item_id"})
    history = history.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    if events.schema["item_id"] == pl.Int64:
        integers = history["item_id"].cast(pl.Int64, strict=False)
        if integers.null_count():
            targets = targets.with_columns(pl.col("item_id").cast(pl.String))
        else:
            history = history.with_columns(integers.alias("item_id"))
    history = history.join(targets, on=["user_id", "item_id"], how="anti", maintain_order="left")
    joined = pl.concat([history, targets.drop("item_ids")], how="diagonal")
    ordered = joined.sort("_target", "_history_index", nulls_last=True, maintain_order=True)
    columns = [name for name in events.columns if name != "item_ids"]
    if "position" not in columns:
        columns.append("position")
    return ordered.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64)).select(columns)
