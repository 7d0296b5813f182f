"""EventFilters that drop events before anything is learned. Each says what it dropped."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from cllm4rec.data.ids import codes, pair_codes, repeated, with_categories
from cllm4rec.messages import counted

ORDER = ("position", "timestamp")  # what a user's events are ordered by


@dataclass(frozen=True)
class Dropped:
    """What one rule took away."""

    rule: str
    users: int
    items: int
    events: int

    def __str__(self) -> str:
        numbers = (counted(self.events, "event"), counted(self.users, "user"), counted(self.items, "item"))
        return f"{self.rule}: dropped {', '.join(numbers)}"


class EventFilters:
    """Applies rules to a table of events and keeps the account of what each dropped.

    In `events`, ids that are text stand as categories.
    """

    def __init__(self, events: pl.DataFrame) -> None:
        self.events = with_categories(events)
        self.dropped: list[Dropped] = []

    def apply(self, rule: str, keep: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        before, self.events = self.events, keep(self.events)
        self.dropped.append(
            Dropped(
                rule,
                before["user_id"].n_unique() - self.events["user_id"].n_unique(),
                before["item_id"].n_unique() - self.events["item_id"].n_unique(),
                len(before) - len(self.events),
            )
        )

    def account(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in self.dropped]


def latest_of_repeats(events: pl.DataFrame) -> pl.DataFrame:
    """One event for each pair of user and item: the latest by position, then timestamp, then row.

    An event without a position or timestamp counts as the earliest.
    """
    return _one_of_repeats(events, ORDER, "last")


def first_of_repeats(events: pl.DataFrame, order: tuple[str, ...] = ORDER) -> pl.DataFrame:
    """One event for each pair of user and item: the first by the columns of `order`, then row; empty cells come first."""
    return _one_of_repeats(events, order, "first")


def _one_of_repeats(
    events: pl.DataFrame, order: tuple[str, ...], keep: Literal["first", "last"]
) -> pl.DataFrame:
    pairs = pair_codes(events)
    several = repeated(pairs)
    if not several.any():
        return events
    there = [name for name in order if name in events.columns]
    repeats = (
        events.with_columns(pl.Series("_pair", pairs))
        .select(*there, "_pair")
        .with_row_index("_row")
        .filter(several)
    )
    ordered = repeats.sort(there, nulls_last=False, maintain_order=True) if there else repeats
    stays = ~several.to_numpy()
    stays[ordered.unique("_pair", keep=keep, maintain_order=True)["_row"].to_numpy()] = True
    return events.filter(pl.Series(stays))


def keep_k_core(events: pl.DataFrame, k: int) -> pl.DataFrame:
    """Drop users and items with fewer than k events, again and again until none is left to drop."""
    users, items, rows = codes(events["user_id"]), codes(events["item_id"]), np.arange(len(events))
    while not (often := (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)).all():
        users, items, rows = users[often], items[often], rows[often]
    return events[rows] if len(rows) < len(events) else events
