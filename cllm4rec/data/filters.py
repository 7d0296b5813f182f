"""Filters of events, applied before anything is learned. Each reports what it dropped."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import polars as pl

from cllm4rec.data.description import FilterReport
from cllm4rec.data.ids import codes, hash_column, pair_codes, repeated, with_categories
from cllm4rec.data.randomness import mix

ORDER = ("position", "timestamp")  # columns that order a user's events


class EventFilters:
    """Filters a table of events and reports what each filter dropped.

    Attributes:
        events: the events that are left; text ids are categories.
        reports: one report per filter, in the order of application.
    """

    def __init__(self, events: pl.DataFrame) -> None:
        self.events = with_categories(events)
        self.reports: list[FilterReport] = []

    def apply(self, rule: str, keep: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replace the events by `keep(events)`; `rule` names the filter in the report."""
        before, self.events = self.events, keep(self.events)
        self.reports.append(
            FilterReport(
                rule,
                before["user_id"].n_unique() - self.events["user_id"].n_unique(),
                before["item_id"].n_unique() - self.events["item_id"].n_unique(),
                len(before) - len(self.events),
            )
        )


def latest_of_repeats(events: pl.DataFrame) -> pl.DataFrame:
    """One event per pair of user and item: the latest by position, then timestamp, then row.

    An event without a position or timestamp counts as the earliest.
    """
    return _without_repeats(events, ORDER, "last")


def first_of_repeats(events: pl.DataFrame, order: tuple[str, ...] = ORDER) -> pl.DataFrame:
    """One event per pair of user and item: the first by the columns of `order`, then row.

    Empty cells come first.
    """
    return _without_repeats(events, order, "first")


def _without_repeats(
    events: pl.DataFrame, order: tuple[str, ...], keep: Literal["first", "last"]
) -> pl.DataFrame:
    pairs = pair_codes(events)
    several = repeated(pairs)
    if not several.any():
        return events
    order_columns = [name for name in order if name in events.columns]
    repeats = (
        events.with_columns(pl.Series("_pair", pairs))
        .select(*order_columns, "_pair")
        .with_row_index("_row")
        .filter(several)
    )
    if order_columns:
        repeats = repeats.sort(order_columns, nulls_last=False, maintain_order=True)
    kept = ~several.to_numpy()
    kept[repeats.unique("_pair", keep=keep, maintain_order=True)["_row"].to_numpy()] = True
    return events.filter(pl.Series(kept))


def keep_k_core(events: pl.DataFrame, k: int) -> pl.DataFrame:
    """Drop users and items with fewer than k events, until all that are left have k."""
    users, items, rows = codes(events["user_id"]), codes(events["item_id"]), np.arange(len(events))
    while not (frequent := (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)).all():
        users, items, rows = users[frequent], items[frequent], rows[frequent]
    return events[rows] if len(rows) < len(events) else events


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
