"""Held-out rows: per row of a file a user's history and the target item."""

from dataclasses import replace

import polars as pl

from cllm4rec.data.description import SplitDescription
from cllm4rec.data.filters import EventFilters
from cllm4rec.data.readers.split_tables import SplitTable
from cllm4rec.data.splits import HELD_OUT_RULE


def add_held_out_rows(
    filters: EventFilters, table: SplitTable, description: SplitDescription
) -> SplitDescription:
    """Add the rows of a file to the events, with parts.

    Each row is a user. Its history items become events of part `history`, in that order; its target is
    `validation` or `test`. All other users are train.

    Where the file names users, their other events are dropped; rating, timestamp and review of a named event
    are kept. Otherwise each row is a new user: val-1, val-2, ..., test-1, ...

    Args:
        filters: holds the events, each pair of user and item at most once; its events are replaced.
        table: held-out rows.
        description: of the split; its `method` is the name of the file.

    Returns:
        The description with the numbers of validation and test rows.

    Raises:
        ValueError: a row has an item twice, or a new user's id is taken.
    """
    rows = table.frame.with_columns(
        item_id=pl.concat_list("history_items", pl.col("target_item").cast(pl.String)),
        part=pl.col("split"),
    )
    repeats = rows["item_id"].list.n_unique() < rows["item_id"].list.len()
    table.raw.refuse("target_item", repeats, "a row with each item once is needed")
    schema = filters.events.schema
    events = filters.events.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    if "user_id" in rows.columns:
        rows = rows.with_columns(pl.col("user_id").cast(pl.String))
        held_out, users = _as_events(rows), rows.select("user_id")
        others = events.join(users, on="user_id", how="anti", maintain_order="left")
        named = events.join(held_out, on=["user_id", "item_id"], how="semi")
        rule = f"other events of the users that {description.method} names"
        filters.apply(rule, lambda _: pl.concat([others, named]))
    else:
        rows = rows.with_columns(user_id=_new_users(rows, events["user_id"], table.raw.name))
        held_out, others = _as_events(rows), events
    attributes = [column for column in events.columns if column not in ("position", "part")]
    held_out = held_out.join(
        events.select(attributes), on=["user_id", "item_id"], how="left", maintain_order="left"
    )
    joined = pl.concat([others.with_columns(part=pl.lit("train")), held_out], how="diagonal")
    for column in ("user_id", "item_id"):
        numbers = joined[column].cast(pl.Int64, strict=False)
        if schema[column] == pl.Int64 and not numbers.null_count():
            joined = joined.with_columns(numbers.alias(column))
    filters.events = joined
    return replace(
        description,
        rule=HELD_OUT_RULE,
        n_validation_rows=int((rows["split"] == "validation").sum()),
        n_test_rows=int((rows["split"] == "test").sum()),
    )


def _new_users(rows: pl.DataFrame, user_ids: pl.Series, name: str) -> pl.Series:
    """Ids of rows without a user: val-1, val-2, ..., test-1, ...

    Raises:
        ValueError: an id is among `user_ids`; the message names the file, `name`.
    """
    number = pl.int_range(1, pl.len() + 1).over("split").cast(pl.String)
    new = rows.select(user_id=pl.col("split").replace("validation", "val") + "-" + number)["user_id"]
    existing = new.filter(new.is_in(user_ids.unique().implode()))
    if len(existing):
        raise ValueError(
            f"{name}: user {existing[0]!r} is to be made, and is in the events: give a user_id column"
        )
    return new


def _as_events(rows: pl.DataFrame) -> pl.DataFrame:
    """One event per item of each row's list, in order; the last is the target."""
    length = pl.col("item_id").list.len().cast(pl.Int64)
    listed = rows.select(
        "user_id", "item_id", "part", last=length - 1, position=pl.int_ranges(length, dtype=pl.Int64)
    )
    part = pl.when(pl.col("position") == pl.col("last")).then("part").otherwise(pl.lit("history"))
    return listed.explode("item_id", "position").with_columns(part=part).drop("last")
