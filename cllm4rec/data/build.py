"""From tables to a dataset: filters, then the split. Each filter reports what it dropped."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.description import (
    IN_TIME,
    DatasetDescription,
    FilterReport,
    SplitDescription,
    TableReport,
)
from cllm4rec.data.filters import ORDER, EventFilters, first_of_repeats, keep_k_core, latest_of_repeats
from cllm4rec.data.held_out import add_held_out_rows
from cllm4rec.data.ids import hash_column
from cllm4rec.data.randomness import check_seed, mix
from cllm4rec.data.readers.split_tables import SplitTable, read_split_table
from cllm4rec.data.readers.tables import CheckedTable, read_event_table, read_item_table, read_user_table
from cllm4rec.data.splits import FILE_RULE, RULES, assign_parts, read_parts
from cllm4rec.data.unmatched import unmatched_ids
from cllm4rec.messages import join_names

INCOMPLETE = "events without a user or item id"


def build_dataset(
    events: Any,
    items: Any = None,
    users: Any = None,
    *,
    min_rating: float | None = None,
    k_core: int = 0,
    split: str = "random",
    split_table: Any = None,
    split_column: str | None = None,
    seed: int = 0,
    shuffle_ties: int | None = None,
    drop_incomplete: bool = False,
) -> Dataset:
    """Filter, number and split.

    The dataset's `description` reports what each filter dropped, columns that were not read, and warnings.

    Args:
        events, items, users: as in `Dataset.from_frame`, or the results of `readers.read_event_table`,
            `read_item_table` and `read_user_table`.
        min_rating: lowest rating to keep; of repeated events, that of the kept event counts.
        k_core: keep users and items with at least this many events, to a fixed point; 0 keeps all.
        split: a key of `splits.RULES`, or the name of the file that `split_table` came from.
        split_table: parts of the events or held-out rows, in place of a rule: a frame, or the result of
            `readers.read_split_table`.
        split_column: its column of parts; `seed_{seed}` if not given.
        seed: of the random split.
        shuffle_ties: seed of a random order of a user's simultaneous events; None keeps the data's order.
        drop_incomplete: drop rows without a user or item id, in all tables, rather than refuse them.

    Raises:
        ValueError: the data lack what an argument needs, or no event is left.
    """
    check_seed(seed)
    if shuffle_ties is not None:
        check_seed(shuffle_ties, "shuffle_ties")
    table = read_event_table(events, drop_incomplete=drop_incomplete)
    item_table = None if items is None else read_item_table(items, drop_incomplete=drop_incomplete)
    user_table = None if users is None else read_user_table(users, drop_incomplete=drop_incomplete)
    parts = None if split_table is None else read_split_table(split_table, drop_incomplete=drop_incomplete)
    _check(table.frame, min_rating, k_core, split, parts)
    filters = _drop_repeats(table, split if parts is None else None, shuffle_ties)
    described = SplitDescription(
        Path(split).name, RULES.get(split, FILE_RULE), seed, shuffle_ties=shuffle_ties
    )
    warnings: list[str] = []
    if parts is not None:
        warnings = _unmatched_parts(filters.events, parts, described.method)
        described = _apply_split_table(filters, parts, split_column or f"seed_{seed}", described)
    _apply_filters(filters, min_rating, k_core)
    if filters.events.is_empty():
        reasons = [*map(str, filters.reports), *warnings]
        raise ValueError("nothing is left to learn from: " + "; ".join(reasons))
    dataset = Dataset.from_tables(replace(table, frame=filters.events), item_table, user_table)
    part = dataset.part if parts is not None else assign_parts(dataset, split, seed)
    tables = {"interactions": table, "items": item_table, "users": user_table}
    return dataset.with_split(part, _description(dataset, tables, filters, described, warnings))


def _drop_repeats(table: CheckedTable, rule: str | None, shuffle_ties: int | None) -> EventFilters:
    """The events of a table, each pair of user and item once.

    Args:
        rule: of the split; None for a split table.
        shuffle_ties: as in `build_dataset`.
    """
    filters = EventFilters(table.frame)
    if table.incomplete:
        filters.reports.append(FilterReport(INCOMPLETE, **table.incomplete))
    if shuffle_ties is not None:
        filters.events = shuffled_ties(filters.events, shuffle_ties)
    # In a split in time the first stays: keeping the latest would take events out of the past.
    if rule in IN_TIME:
        order = ("timestamp", "position") if rule == "time" else ORDER
        filters.apply(
            "first of repeated events of a user and an item", lambda frame: first_of_repeats(frame, order)
        )
    else:
        filters.apply("latest of repeated events of a user and an item", latest_of_repeats)
    return filters


def _unmatched_parts(events: pl.DataFrame, table: SplitTable, name: str) -> list[str]:
    """Warnings where ids of a split table do not match those of the events; `name` is the table's."""
    rows = table.frame
    if table.held_out:
        item_ids = pl.concat_list("history_items", pl.col("target_item").cast(pl.String))
        user_ids = ["user_id"] if "user_id" in rows.columns else []
        rows = rows.select(*user_ids, item_id=item_ids).explode("item_id")
    return [
        line
        for kind in ("user", "item")
        if f"{kind}_id" in rows.columns
        for line in unmatched_ids(events[f"{kind}_id"], rows[f"{kind}_id"], kind, name)
    ]


def _apply_split_table(
    filters: EventFilters, table: SplitTable, column: str, described: SplitDescription
) -> SplitDescription:
    """Give the events the parts of a split table; returns the description with the counts of its rows."""
    if table.held_out:
        return add_held_out_rows(filters, table, described)
    rule = f"named in column {column} of {described.method}"
    filters.apply(rule, lambda frame: read_parts(frame, table, column))
    n_pairs = table.frame.select("user_id", "item_id").n_unique()
    return replace(described, column=column, rows_without_events=n_pairs - len(filters.events))


def _apply_filters(filters: EventFilters, min_rating: float | None, k_core: int) -> None:
    """Filter by rating, then to the k-core. Nothing may be dropped after the k-core, so these come last."""
    if min_rating is not None:
        filters.apply(_rating_rule(min_rating), lambda frame: frame.filter(pl.col("rating") >= min_rating))
    if k_core > 1:
        filters.apply(f"{k_core}-core", lambda frame: keep_k_core(frame, k_core))


def shuffled_ties(events: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The events with new positions: in order of time, and a user's simultaneous events in random order.

    The random key of an event depends on (seed, user id, item id) alone. An event without a time is tied with
    its predecessor by the old positions, or with the earliest event where it has none.

    Raises:
        ValueError: there are no times.
    """
    if "timestamp" not in events.columns or not events["timestamp"].is_not_null().any():
        raise ValueError(
            "`shuffle_ties` needs a timestamp column: without times nothing says which events are tied"
        )
    order = [name for name in ORDER if name in events.columns]
    ordered = events.sort(order, nulls_last=False, maintain_order=True)
    time = pl.col("timestamp").forward_fill().backward_fill().over("user_id")
    key = mix(seed, hash_column(ordered["user_id"]), hash_column(ordered["item_id"]))
    ordered = ordered.with_columns(time.alias("_time"), pl.Series("_key", key))
    ordered = ordered.sort("_time", "_key", nulls_last=False, maintain_order=True).drop("_time", "_key")
    return ordered.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64))


def _description(
    dataset: Dataset,
    tables: dict[str, CheckedTable | None],
    filters: EventFilters,
    split: SplitDescription,
    warnings: list[str],
) -> DatasetDescription:
    """What was read, dropped and left."""
    read = {name: table for name, table in tables.items() if table is not None}
    ids = {"items": dataset.items["item_id"], "users": dataset.users["user_id"]}
    ids = {name: column for name, column in ids.items() if name in read}
    item_texts = dataset.item_texts
    unmatched = [
        line
        for name, column in ids.items()
        for line in unmatched_ids(
            column, read[name].frame[column.name], column.name[:4], Path(read[name].name).name
        )
    ]
    return DatasetDescription(
        columns={name: table.mapping for name, table in read.items()},
        columns_not_read={name: join_names(table.unread) for name, table in read.items() if table.unread},
        rules=tuple(filters.reports),
        tables={name: _table_report(read[name], column) for name, column in ids.items()},
        texts={name: sum(text != "" for text in texts) for name, texts in item_texts.items()},
        n_items_without_text=sum(not any(texts) for texts in zip(*item_texts.values(), strict=True)),
        n_users_below_3_events=int((np.diff(dataset.interactions.indptr) < 3).sum()),
        split=split,
        warnings=(*warnings, *unmatched),
    )


def _check(
    events: pl.DataFrame, min_rating: float | None, k_core: int, split: str, parts: SplitTable | None
) -> None:
    """Raise ValueError if the data lack what an argument needs."""
    if parts is None and split not in RULES:
        raise ValueError(f"split {split!r} is unknown: take one of {', '.join(RULES)} or a file")
    if parts is None and split in IN_TIME and not {"timestamp", "position"} & set(events.columns):
        raise ValueError(
            f"`split` {split} needs an order in time: the interactions have no timestamp (or position)"
        )
    if k_core < 0 or (min_rating is not None and math.isnan(min_rating)):
        raise ValueError("`min_rating` has to be a number and `k_core` may not be negative")
    if min_rating is not None and "rating" not in events.columns:
        raise ValueError("`min_rating` needs a rating column, and the interactions have none")
    if parts is not None and parts.held_out and (min_rating is not None or k_core > 1):
        raise ValueError(
            "held-out rows are exact: leave out the rating filter and the k-core (`min_rating`, `k_core`)"
        )


def _table_report(table: CheckedTable, ids: pl.Series) -> TableReport:
    """How the rows of the items (or users) table match the ids with events."""
    table_ids = table.frame[ids.name].cast(pl.String)
    distinct = table_ids.unique()
    n_matched = int(distinct.is_in(ids.cast(pl.String).implode()).sum())
    return TableReport(
        repeated_rows=len(table_ids) - len(distinct),
        rows_without_events=len(distinct) - n_matched,
        without_a_row=len(ids) - n_matched,
    )


def _rating_rule(min_rating: float) -> str:
    """Name of the rating filter: `rating > 3`, or `rating >= 3.5` where no whole number is just below."""
    below = math.nextafter(min_rating, -math.inf)
    return f"rating > {below:g}" if below == int(below) else f"rating >= {min_rating:g}"
