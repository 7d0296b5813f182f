"""Which events are learned from, which choose the settings, which are reported once."""

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.randomness import hash_ids, mix

RULES = {
    "random": "per user at random: max(1, round(0.1 n)) events to test and as many to validation; "
    "users with fewer than 3 events stay in train",
    "leave-last-out": "per user in time order: last event to test, the one before to validation; "
    "users with fewer than 3 events stay in train; equal times are ordered by a hash of the ids",
    "time": "one point in time for all: the last 10 % of events to test, the 10 % before to validation; "
    "events of one second stay together",
    "none": "all events are train: nothing is held out, nothing is evaluated",
}


def assign_parts(dataset: Dataset, method: str, seed: int = 0) -> np.ndarray:
    """Part of each event, uint8 (n_events,): 0 train, 1 validation, 2 test.

    Args:
        dataset: its events in time order within each user.
        method: a key of `RULES`.
        seed: of the random split. An event's place depends on (seed, user id, item id) alone, so neither the order of
            the rows nor the other users move it.

    Raises:
        ValueError: `method` needs an order in time and the data has none.
    """
    events = dataset.interactions
    if method == "none":
        return np.zeros(len(events), dtype=np.uint8)
    n = np.diff(events.indptr)[events.users]  # events of each event's user
    if method == "random":
        ids = hash_ids(dataset.users["user_id"])[events.users], hash_ids(dataset.items["item_id"])[events.items]
        order = np.lexsort((mix(seed, *ids), events.users))
        place = np.empty(len(events), dtype=np.int64)  # in a random order of the user's own events
        place[order] = np.arange(len(events)) - events.indptr[events.users]
        n_held = np.maximum(1, np.rint(0.1 * n).astype(np.int64))
        return _by_place(place, n_held, n)
    if method == "leave-last-out":
        from_end = events.indptr[events.users + 1] - 1 - np.arange(len(events))
        return _by_place(from_end, np.ones(len(events), dtype=np.int64), n)
    if method == "time":
        if events.times is None:
            raise ValueError("--split time needs a timestamp column in the interactions")
        return _global_time(events.times)
    raise ValueError(f"split {method!r} is unknown: take one of {', '.join(RULES)} or a file")


def _by_place(place: np.ndarray, n_held: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The first n_held places to test, the next n_held to validation, for users with at least three events."""
    part = np.zeros(len(place), dtype=np.uint8)
    part[place < 2 * n_held] = 1
    part[place < n_held] = 2
    part[n < 3] = 0
    return part


def _global_time(times: np.ndarray) -> np.ndarray:
    ordered = np.sort(times)
    validation_from, test_from = ordered[int(0.8 * len(times))], ordered[int(0.9 * len(times))]
    if validation_from == test_from or validation_from == ordered[0]:
        raise ValueError("--split time: too many events share one timestamp to cut off 10 % twice")
    return ((times >= validation_from).astype(np.uint8) + (times >= test_from)).astype(np.uint8)


def read_parts(events: pl.DataFrame, table: pl.DataFrame, column: str) -> pl.DataFrame:
    """Events with the `part` that a split table gives them; events it does not name are left out.

    Args:
        events: `user_id`, `item_id`, ...
        table: `user_id`, `item_id` and `column`, whose values are t, v, e or train, validation, test.
        column: which column holds the parts.

    Raises:
        ValueError: the column is missing or holds something else.
    """
    if column not in table.columns:
        others = [name for name in table.columns if name not in ("user_id", "item_id")]
        raise ValueError(f"the split file has no column {column!r}: choose one of {', '.join(others)} (--split-column)")
    names = {"t": "train", "v": "validation", "e": "test", "train": "train", "validation": "validation", "test": "test"}
    bad = table.filter(~pl.col(column).cast(pl.String).is_in(list(names)).fill_null(False))
    if len(bad):
        raise ValueError(f"the split file's column {column!r} holds {bad[column][0]!r}: it may hold t, v, e or the words")
    keys = [pl.col("user_id").cast(pl.String).alias("_user"), pl.col("item_id").cast(pl.String).alias("_item")]
    parts = table.select(*keys, pl.col(column).cast(pl.String).replace_strict(names).alias("part"))
    joined = events.with_columns(keys).join(
        parts.unique(["_user", "_item"], keep="first", maintain_order=True), on=["_user", "_item"], how="inner"
    )
    return joined.drop("_user", "_item")
