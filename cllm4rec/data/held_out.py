"""Held-out rows: for each user of a file, what came before and the one item to find."""

from typing import Any

import polars as pl

from cllm4rec.data.filters import EventFilters
from cllm4rec.data.readers.split_tables import SplitTable


def add_held_out_rows(rules: EventFilters, table: SplitTable, name: str) -> dict[str, Any]:
    """Put the rows of a file into the events, with parts.

    Each row is a user: its history items become events of part `history`, in that order, its target one of `validation` or
    `test`. Where the file names users, their other events are dropped, and what the events say of the same user and item
    (rating, timestamp, review) is kept. Where it does not, each row is a new user: val-1, val-2, ..., test-1, ... All other
    users are train.

    Args:
        rules: holds the events, each user and item at most once; its events are replaced.
        table: held-out rows.
        name: of the file, for the account.

    Returns:
        how many rows there are of validation and of test.

    Raises:
        ValueError: a row has an item twice, or a new user's name is taken.
    """
    rows = table.frame.with_columns(
        item_id=pl.concat_list("history_items", pl.col("target_item").cast(pl.String)),
        part=pl.col("split"),
    )
    again = rows["item_id"].list.n_unique() < rows["item_id"].list.len()
    table.raw.refuse("target_item", again, "a row with each item once is needed")
    kinds = rules.events.schema
    events = rules.events.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    if "user_id" in rows.columns:
        rows = rows.with_columns(pl.col("user_id").cast(pl.String))
        held, users = _as_events(rows), rows.select("user_id")
        others = events.join(users, on="user_id", how="anti", maintain_order="left")
        named = events.join(held, on=["user_id", "item_id"], how="semi")
        rules.apply(f"other events of the users that {name} names", lambda _: pl.concat([others, named]))
    else:
        number = pl.int_range(1, pl.len() + 1).over("split").cast(pl.String)
        rows = rows.with_columns(user_id=pl.col("split").replace("validation", "val") + "-" + number)
        taken = rows["user_id"].filter(rows["user_id"].is_in(events["user_id"].unique().implode()))
        if len(taken):
            raise ValueError(
                f"{table.raw.name}: user {taken[0]!r} is to be made, and is in the events: give a user_id column"
            )
        held, others = _as_events(rows), events
    about = [column for column in events.columns if column not in ("position", "part")]
    held = held.join(events.select(about), on=["user_id", "item_id"], how="left", maintain_order="left")
    together = pl.concat([others.with_columns(part=pl.lit("train")), held], how="diagonal")
    for column in ("user_id", "item_id"):
        numbers = together[column].cast(pl.Int64, strict=False)
        if kinds[column] == pl.Int64 and not numbers.null_count():
            together = together.with_columns(numbers.alias(column))
    rules.events = together
    return {f"n_{part}_rows": int((rows["split"] == part).sum()) for part in ("validation", "test")}


def _as_events(rows: pl.DataFrame) -> pl.DataFrame:
    """An event for each item of each row's list, in order; the last is the target."""
    length = pl.col("item_id").list.len().cast(pl.Int64)
    placed = rows.select(
        "user_id", "item_id", "part", last=length - 1, position=pl.int_ranges(length, dtype=pl.Int64)
    )
    part = pl.when(pl.col("position") == pl.col("last")).then("part").otherwise(pl.lit("history"))
    return placed.explode("item_id", "position").with_columns(part=part).drop("last")
