"""Sequences of items beside a target: the history of an event as further events before it."""

import polars as pl

ORDER = ("position", "timestamp")


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
    targets = targets.with_columns(_target=pl.int_range(pl.len(), dtype=pl.Int64), _place=pl.lit(None, dtype=pl.Int64))
    past = targets.select("user_id", "_target", "item_ids", _place=pl.int_ranges(pl.col("item_ids").list.len(), dtype=pl.Int64))
    past = past.filter(pl.col("item_ids").list.len() > 0).explode("item_ids", "_place").rename({"item_ids": "item_id"})
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
