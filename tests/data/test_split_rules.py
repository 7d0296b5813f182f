"""Each rule of splits equals a reference in plain Python, with ties, repeats and empty cells."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import hash_ids
from cllm4rec.data.randomness import mix
from cllm4rec.data.splits import RULES

Row = dict[str, Any]


def tied_events(seed: int, split: str) -> pl.DataFrame:
    """Few users, items and times: many ties, repeats and empty cells. The review is the row's number."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(6, 40))
    choices = {"position": [None, 0, 1, 2], "timestamp": [None, 10, 20, 30, 40, 50]}
    columns: dict[str, list[Any]] = {}
    for name, values in choices.items():
        columns[name] = [values[i] for i in generator.integers(0, len(values), n)]
    for name in ("user_id", "item_id"):
        columns[name] = [f"{name[0]}{i}" for i in generator.integers(0, 6, n)]
    last = ("timestamp",) if split == "time" else ("position",)
    kept = [("timestamp",), ("position", "timestamp"), last][seed % 3]
    columns = {name: cells for name, cells in columns.items() if name.endswith("_id") or name in kept}
    events = pl.DataFrame(columns, schema_overrides=dict.fromkeys(kept, pl.Int64))
    return events.with_columns(review_text=pl.format("row {}", pl.int_range(pl.len())))


def sort_key(row: Row, *names: str) -> list[float]:
    """The cells of these columns; an empty cell is before everything."""
    return [-math.inf if row.get(name) is None else row[name] for name in names]


def plain_rows(events: pl.DataFrame, split: str) -> list[Row]:
    """One event for each pair of user and item, chosen by the split's rule and sorted by user and time."""
    order = ("timestamp", "position") if split == "time" else ("position", "timestamp")
    first_of_repeats = split in ("leave-last-out", "time")
    chosen: dict[tuple[str, str], Row] = {}
    for row in events.to_dicts():
        previous = chosen.setdefault((row["user_id"], row["item_id"]), row)
        earlier = sort_key(row, *order) < sort_key(previous, *order)
        if earlier == first_of_repeats:
            chosen[row["user_id"], row["item_id"]] = row

    def order_of(row: Row) -> tuple[str, list[float], int]:
        return row["user_id"], sort_key(row, "position", "timestamp"), hashed(row)

    return sorted(chosen.values(), key=order_of)


def hashed(row: Row, *key: int) -> int:
    """Hash of the row's ids under a key."""
    return int(mix(*key, *hash_ids([row["user_id"], row["item_id"]]).tolist())[0])


def plain_parts(rows: list[Row], split: str, seed: int) -> list[int]:
    """The part of each row: 0 train, 1 validation, 2 test."""
    part = {id(row): 0 for row in rows}
    if split == "time":
        times = sorted(sort_key(row, "timestamp")[0] for row in rows)
        cuts = times[int(0.8 * len(rows))], times[int(0.9 * len(rows))]
        if cuts[0] == cuts[1] or cuts[0] == times[0]:
            raise ValueError("too many events share one timestamp")
        part = {id(row): sum(sort_key(row, "timestamp")[0] >= cut for cut in cuts) for row in rows}
    users = {row["user_id"] for row in rows} if split in ("random", "leave-last-out") else set()
    for user in users:
        history = [row for row in rows if row["user_id"] == user]
        held = max(1, round(0.1 * len(history))) if split == "random" else 1
        if split == "random":
            history.sort(key=lambda row: -hashed(row, seed))
        if len(history) >= 3:
            part |= {id(row): 1 for row in history[-2 * held :]} | {id(row): 2 for row in history[-held:]}
    return [part[id(row)] for row in rows]


@pytest.mark.parametrize("split", list(RULES))
def test_every_split_equals_its_rule_in_plain_python(split: str) -> None:
    compared = 0
    for seed in range(120):
        events = tied_events(seed, split)
        try:
            rows = plain_rows(events, split)
            parts = plain_parts(rows, split, seed)
        except ValueError:
            with pytest.raises(ValueError, match="share one timestamp"):
                Dataset.from_frame(events, split=split, seed=seed)
            continue
        dataset = Dataset.from_frame(events, split=split, seed=seed)
        kept = dataset.interactions
        names = dataset.user_ids.names(kept.users).to_list(), dataset.item_ids.names(kept.items).to_list()
        got = list(zip(*names, kept.reviews.to_list(), dataset.part.tolist(), strict=True))
        expected = [
            (row["user_id"], row["item_id"], row["review_text"], part)
            for row, part in zip(rows, parts, strict=True)
        ]
        # The sort is stable: the order of each user's events is compared too.
        assert sorted(got, key=lambda row: row[0]) == expected
        compared += 1
    assert compared > 50
