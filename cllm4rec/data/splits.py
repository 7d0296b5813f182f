"""Which events are learned from, which choose the settings, which are reported once."""

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import hash_ids
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
FILE_RULE = "parts as the file gives them; events it does not name are left out; of repeats the latest event stays, with its rating"
HELD_OUT_RULE = (
    "each row of the file is a user: its history is input only, its target is validation or test; all other users are train; "
    "of repeats the latest event stays"
)
IN_TIME = (
    "leave-last-out",
    "time",
)  # of repeats the first stays: the latest would take events out of the past


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
        ids = (
            hash_ids(dataset.users["user_id"])[events.users],
            hash_ids(dataset.items["item_id"])[events.items],
        )
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


def input_events(dataset: Dataset, part: str) -> Dataset:
    """What a model may look at to find the events of a held-out part: training events and histories, and in splits in time
    the validation events too when it is test, as they came before it."""
    in_time = dataset.about.get("split", {}).get("method") in IN_TIME
    return dataset.only("train", "validation", "history") if in_time and part == "test" else dataset.seen


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


def read_parts(events: pl.DataFrame, table: SplitTable, column: str) -> pl.DataFrame:
    """Events with the `part` that a split table gives them; events it does not name are left out.

    Args:
        events: `user_id`, `item_id`, ...
        table: `user_id`, `item_id` and `column`, whose values are keys of `PART_NAMES`.
        column: which column holds the parts.

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
