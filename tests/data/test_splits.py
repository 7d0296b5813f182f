"""Rules of splits: random, leave-last-out, time and none."""

import math

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.randomness import hash_ids, mix
from cllm4rec.data.splits import RULES, assign_parts
from tests.support.datasets import parts_by_ids, random_events


@pytest.mark.parametrize(
    ("n", "held"),
    [
        (1, 0),
        (2, 0),
        (3, 1),
        (4, 1),
        (9, 1),
        (10, 1),
        (14, 1),
        (15, 2),
        (16, 2),
        (24, 2),
        (25, 2),
        (26, 3),
        (94, 9),
        (96, 10),
    ],
)
def test_random_split_holds_out_a_tenth_but_at_least_one_of_three(n: int, held: int) -> None:
    """max(1, round(0.1 n)) to test and as many to validation; 1.5 -> 2 and 2.5 -> 2, as Python rounds."""
    others = [("z", f"i{item}") for item in range(100)]
    events = pl.DataFrame(
        [("a", f"i{i}") for i in range(n)] + others, schema=["user_id", "item_id"], orient="row"
    )
    dataset = build_dataset(events)
    own = dataset.part[dataset.interactions.users == dataset.user_ids.index(["a"])[0]]
    assert [(own == part).sum() for part in (0, 1, 2)] == [n - 2 * held, held, held]


def test_random_split_depends_on_neither_the_order_of_rows_nor_the_other_users() -> None:
    events = random_events(3)
    whole = parts_by_ids(build_dataset(events, seed=4))
    assert parts_by_ids(build_dataset(events.sample(fraction=1, shuffle=True, seed=1), seed=4)) == whole
    some = parts_by_ids(
        build_dataset(events.filter(pl.col("user_id").is_in(["u1", "u5", "u6", "u20"])), seed=4)
    )
    assert some == {pair: part for pair, part in whole.items() if pair[0] in ("u1", "u5", "u6", "u20")}


def test_random_splits_of_different_seeds_differ() -> None:
    events = random_events(3)
    first, second = (parts_by_ids(build_dataset(events, seed=seed)) for seed in (0, 1))
    moved = [pair for pair in first if first[pair] != second[pair]]
    assert len(moved) > 0.15 * len(first)  # about 2 * 0.2 * 0.8 expected


def test_random_split_takes_early_and_late_events_alike() -> None:
    rows = [(f"u{user}", f"i{item}", item) for user in range(400) for item in range(20)]
    dataset = build_dataset(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    places = dataset.test.interactions.times
    assert places is not None
    assert places.mean() == pytest.approx(9.5, abs=0.7)  # standard error 0.2
    assert set(places.tolist()) == set(range(20))


def test_leave_last_out_holds_out_the_last_two_events() -> None:
    rows = [("a", "x", 30), ("a", "y", 10), ("a", "z", 20), ("a", "w", 5), ("b", "x", 1), ("b", "y", 2)]
    dataset = build_dataset(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), split="leave-last-out"
    )
    assert parts_by_ids(dataset) == {
        ("a", "x"): 2,
        ("a", "z"): 1,
        ("a", "y"): 0,
        ("a", "w"): 0,
        ("b", "x"): 0,
        ("b", "y"): 0,
    }


def test_leave_last_out_goes_by_position_before_timestamp_and_not_by_row_order_in_ties() -> None:
    events = random_events(5)
    shuffled = events.sample(fraction=1, shuffle=True, seed=2)
    assert parts_by_ids(build_dataset(events, split="leave-last-out")) == parts_by_ids(
        build_dataset(shuffled, split="leave-last-out")
    )
    rows = [("a", "x", 3, 10), ("a", "y", 2, 20), ("a", "z", 1, 30)]
    placed = pl.DataFrame(rows, schema=["user_id", "item_id", "position", "timestamp"], orient="row")
    assert parts_by_ids(build_dataset(placed, split="leave-last-out")) == {
        ("a", "x"): 2,
        ("a", "y"): 1,
        ("a", "z"): 0,
    }


def test_time_split_cuts_at_one_moment_for_all_and_keeps_a_second_together() -> None:
    rows = [(f"u{i % 4}", f"i{i}", i) for i in range(20)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    parts = {
        int(item[1:]): part for (_, item), part in parts_by_ids(build_dataset(frame, split="time")).items()
    }
    assert parts == {i: 0 if i < 16 else 1 if i < 18 else 2 for i in range(20)}
    tied = frame.with_columns(timestamp=pl.col("timestamp").replace({17: 18, 15: 16}))
    parts = {
        int(item[1:]): part for (_, item), part in parts_by_ids(build_dataset(tied, split="time")).items()
    }
    assert parts == {i: 0 if i < 15 else 1 if i < 17 else 2 for i in range(20)}


def test_time_split_of_events_that_share_a_moment_is_an_error() -> None:
    frame = random_events().with_columns(timestamp=pl.lit(7))
    with pytest.raises(ValueError, match="share one timestamp"):
        build_dataset(frame, split="time")


def tied_events(seed: int, split: str) -> pl.DataFrame:
    """Few users, items and moments: many ties, repeats and empty cells; the review numbers the row."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(6, 40))
    draw = {"position": [None, 0, 1, 2], "timestamp": [None, 10, 20, 30, 40, 50]}
    columns = {
        name: [values[i] for i in generator.integers(0, len(values), n)] for name, values in draw.items()
    }
    columns |= {
        name: [f"{name[0]}{i}" for i in generator.integers(0, 6, n)] for name in ("user_id", "item_id")
    }
    kept = [("timestamp",), ("position", "timestamp"), ("position",) if split != "time" else ("timestamp",)][
        seed % 3
    ]
    columns = {name: cells for name, cells in columns.items() if name.endswith("_id") or name in kept}
    return pl.DataFrame(columns, schema_overrides=dict.fromkeys(kept, pl.Int64)).with_columns(
        review_text=pl.format("row {}", pl.int_range(pl.len()))
    )


def moment(row: dict, *names: str) -> list[float]:
    """When an event took place; an empty cell is before everything."""
    return [-math.inf if row.get(name) is None else row[name] for name in names]


def plain_rows(events: pl.DataFrame, split: str) -> list[dict]:
    """One event a user and item, as the split's rule has it, in the order of each user's events."""
    order = ("timestamp", "position") if split == "time" else ("position", "timestamp")
    stays: dict[tuple[str, str], dict] = {}
    for row in events.to_dicts():
        known = stays.setdefault((row["user_id"], row["item_id"]), row)
        earlier, later = (
            moment(row, *order) < moment(known, *order),
            moment(row, *order) >= moment(known, *order),
        )
        if earlier if split in ("leave-last-out", "time") else later:
            stays[row["user_id"], row["item_id"]] = row
    return sorted(
        stays.values(), key=lambda row: (row["user_id"], moment(row, "position", "timestamp"), hashed(row))
    )


def hashed(row: dict, *key: int) -> int:
    return int(mix(*key, *hash_ids([row["user_id"], row["item_id"]]).tolist())[0])


def plain_parts(rows: list[dict], split: str, seed: int) -> list[int]:
    """The part of each row."""
    part = {id(row): 0 for row in rows}
    if split == "time":
        times = sorted(moment(row, "timestamp")[0] for row in rows)
        marks = times[int(0.8 * len(rows))], times[int(0.9 * len(rows))]
        if marks[0] == marks[1] or marks[0] == times[0]:
            raise ValueError("too many events share one timestamp")
        part = {id(row): sum(moment(row, "timestamp")[0] >= mark for mark in marks) for row in rows}
    for user in {row["user_id"] for row in rows} if split in ("random", "leave-last-out") else ():
        mine = [row for row in rows if row["user_id"] == user]
        held = max(1, round(0.1 * len(mine))) if split == "random" else 1
        if split == "random":
            mine.sort(key=lambda row: -hashed(row, seed))
        if len(mine) >= 3:
            part |= {id(row): 1 for row in mine[-2 * held :]} | {id(row): 2 for row in mine[-held:]}
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
                build_dataset(events, split=split, seed=seed)
            continue
        dataset = build_dataset(events, split=split, seed=seed)
        kept = dataset.interactions
        names = dataset.user_ids.names(kept.users).to_list(), dataset.item_ids.names(kept.items).to_list()
        got = list(zip(*names, kept.reviews.to_list(), dataset.part.tolist(), strict=True))
        expected = [
            (row["user_id"], row["item_id"], row["review_text"], part)
            for row, part in zip(rows, parts, strict=True)
        ]
        assert (
            sorted(got, key=lambda row: row[0]) == expected
        )  # a stable sort: each user's order is compared too
        compared += 1
    assert compared > 50


def test_the_last_events_are_not_taken_back_to_an_earlier_place_by_a_repeat() -> None:
    """Keeping the latest of repeats would take x out of the past of a user who came back to it in the end."""
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("a", "x", 9)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert parts_by_ids(build_dataset(events, split="leave-last-out")) == {
        ("a", "x"): 0,
        ("a", "y"): 1,
        ("a", "z"): 2,
    }
    latest = build_dataset(events, split="none")
    assert latest.interactions.times.tolist() == [2, 3, 9]


def test_none_holds_nothing_out() -> None:
    dataset = build_dataset(random_events(), split="none")
    assert not dataset.part.any()
    assert len(dataset.train.interactions) == len(dataset.interactions)


@pytest.mark.parametrize("split", ["leave-last-out", "time"])
def test_splits_in_time_without_times_are_an_error(split: str) -> None:
    with pytest.raises(ValueError, match=f"--split {split}"):
        build_dataset(random_events().drop("timestamp"), split=split)


def test_an_unknown_split_is_an_error_that_names_the_known_ones() -> None:
    for call in (
        lambda: build_dataset(random_events(), split="by luck"),
        lambda: assign_parts(build_dataset(random_events()), "by luck"),
    ):
        with pytest.raises(ValueError, match="'by luck' is unknown") as error:
            call()
        assert all(rule in str(error.value) for rule in RULES)


def test_the_dataset_says_how_it_was_split() -> None:
    about = build_dataset(random_events(), split="random", seed=3).about
    assert about["split"] == {"method": "random", "seed": 3, "rule": RULES["random"]}
