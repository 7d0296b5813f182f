"""Train, validation and test: the split of events by a rule or by a file."""

import numpy as np
import polars as pl

from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix
from cllm4rec.data.readers.split_tables import SplitTable

RULES = {
    "random": "per user at random: max(1, round(0.1 n)) events to test and as many to validation; "
    "users with fewer than 3 events stay in train; of repeats the latest event stays, with its rating; "
    "no order in time, so no ties",
    "leave-last-out": "per user in time order: last event to test, the one before to validation; "
    "users with fewer than 3 events stay in train; of repeats the first event stays, with its rating; "
    "equal times are ordered by a hash of the ids",
    "time": "one point in time for all: the last 10 % of events to test, the 10 % before to validation; "
    "of repeats the first event stays, with its rating; events of one second stay together in one part",
    "none": "all events are train: nothing is held out, nothing is evaluated; "
    "of repeats the latest event stays, with its rating",
}
FILE_RULE = (
    "parts as the file gives them; events it does not name are left out; "
    "of repeats the latest event stays, with its rating"
)
HELD_OUT_RULE = (
    "each row of the file is a user: its history is input only, its target is validation or test; "
    "all other users are train; of repeats the latest event stays"
)


def check_rule(method: str) -> None:
    """Raise ValueError if a split rule is unknown."""
    if method not in RULES:
        raise ValueError(f"split {method!r} is unknown: take one of {', '.join(RULES)}, or a table of parts")


def assign_parts(
    events: Interactions, user_hashes: np.ndarray, item_hashes: np.ndarray, method: str, seed: int = 0
) -> np.ndarray:
    """Part of each event, uint8 (n_events,): 0 train, 1 validation, 2 test.

    Args:
        events: in time order within each user.
        user_hashes: int64 (n_users,), hashes of the users' ids.
        item_hashes: int64 (n_items,), hashes of the items' ids.
        method: a key of `RULES`.
        seed: of the random split. The part of an event depends on the seed and on hashes of the ids of the
            user's events. It does not depend on the order of the rows, nor on other users.

    Raises:
        ValueError: `method` is unknown, or needs an order in time and the data has none.
    """
    check_rule(method)
    if method == "none":
        return np.zeros(len(events), dtype=np.uint8)
    n = np.diff(events.indptr)[events.users]  # (n_events,) number of events of each event's user
    if method == "random":
        rank = _random_rank(events, mix(seed, user_hashes[events.users], item_hashes[events.items]))
        return _parts_by_rank(rank, np.maximum(1, np.rint(0.1 * n).astype(np.int64)), n)
    if method == "leave-last-out":
        rank = events.indptr[events.users + 1] - 1 - np.arange(len(events))  # 0 is the user's last event
        return _parts_by_rank(rank, np.ones(len(events), dtype=np.int64), n)
    if events.times is None:
        raise ValueError("`split` time needs a timestamp column in the interactions")
    return _parts_by_time(events.times)


def _random_rank(events: Interactions, key: np.ndarray) -> np.ndarray:
    """Rank of each event among its user's events by a key (n_events,), int64 (n_events,)."""
    order = np.lexsort((key, events.users))
    rank = np.empty(len(events), dtype=np.int64)
    rank[order] = np.arange(len(events)) - events.indptr[events.users]
    return rank


def _parts_by_rank(rank: np.ndarray, n_held_out: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The first n_held_out ranks of a user are test, the next n_held_out validation.

    Args:
        rank: (n_events,) rank of each event among its user's events.
        n_held_out: (n_events,) number of test events of the event's user.
        n: (n_events,) number of events of the event's user; with fewer than three, all are train.
    """
    part = np.zeros(len(rank), dtype=np.uint8)
    part[rank < 2 * n_held_out] = 1
    part[rank < n_held_out] = 2
    part[n < 3] = 0
    return part


def _parts_by_time(times: np.ndarray) -> np.ndarray:
    """Part of each event by two points in time, the quantiles 0.8 and 0.9 of `times` (n_events,)."""
    ordered = np.sort(times)
    validation_from, test_from = ordered[int(0.8 * len(times))], ordered[int(0.9 * len(times))]
    if validation_from == test_from or validation_from == ordered[0]:
        raise ValueError("`split` time: too many events share one timestamp to cut off 10 % twice")
    return ((times >= validation_from).astype(np.uint8) + (times >= test_from)).astype(np.uint8)


def read_parts(events: pl.DataFrame, table: SplitTable, column: str) -> pl.DataFrame:
    """The events that a split table names, with their `part`.

    Args:
        events: `user_id`, `item_id`, ...
        table: `user_id`, `item_id` and `column`, whose values are keys of `PART_NAMES`.
        column: holds the parts.

    Raises:
        ValueError: the column is missing or holds something else.
    """
    keys = [
        pl.col("user_id").cast(pl.String).alias("_user"),
        pl.col("item_id").cast(pl.String).alias("_item"),
    ]
    parts = table.frame.select(*keys, table.parts(column).alias("part")).unique(
        ["_user", "_item"], keep="first", maintain_order=True
    )
    return events.with_columns(keys).join(parts, on=["_user", "_item"], how="inner").drop("_user", "_item")
