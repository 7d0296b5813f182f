"""Splits: random, leave-last-out, time, none, and those of a table."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.description import SplitDescription
from cllm4rec.data.splits import RULES, assign_parts
from tests.support.datasets import description_of, event_frame, parts_by_ids, random_events
from tests.support.tables import written


@pytest.mark.parametrize(
    ("n", "held"),
    [(1, 0), (2, 0), (3, 1), (4, 1), (9, 1), (10, 1), (14, 1)]
    + [(15, 2), (16, 2), (24, 2), (25, 2), (26, 3), (94, 9), (96, 10)],
)
def test_random_split_holds_out_a_tenth_but_at_least_one_of_three(n: int, held: int) -> None:
    """max(1, round(0.1 n)) to test and as many to validation; 1.5 -> 2 and 2.5 -> 2, as Python rounds."""
    user_a, user_z = [("a", f"i{i}") for i in range(n)], [("z", f"i{i}") for i in range(100)]
    dataset = Dataset.from_frame(event_frame(user_a + user_z), split="random")
    parts = dataset.part[dataset.interactions.users == dataset.user_ids.index(["a"])[0]]
    assert [(parts == part).sum() for part in (0, 1, 2)] == [n - 2 * held, held, held]


def test_random_split_depends_on_neither_the_order_of_rows_nor_the_other_users() -> None:
    events = random_events(3)
    whole = parts_by_ids(Dataset.from_frame(events, split="random", seed=4))
    shuffled = events.sample(fraction=1, shuffle=True, seed=1)
    assert parts_by_ids(Dataset.from_frame(shuffled, split="random", seed=4)) == whole
    users = ["u1", "u5", "u6", "u20"]
    of_users = events.filter(pl.col("user_id").is_in(users))
    alone = parts_by_ids(Dataset.from_frame(of_users, split="random", seed=4))
    assert alone == {pair: part for pair, part in whole.items() if pair[0] in users}


def test_random_splits_of_different_seeds_differ() -> None:
    events = random_events(3)
    first, second = (parts_by_ids(Dataset.from_frame(events, split="random", seed=seed)) for seed in (0, 1))
    moved = [pair for pair in first if first[pair] != second[pair]]
    assert len(moved) > 0.15 * len(first)  # about 2 * 0.2 * 0.8 expected


def test_random_split_takes_early_and_late_events_alike() -> None:
    rows = [(f"u{user}", f"i{item}", item) for user in range(400) for item in range(20)]
    dataset = Dataset.from_frame(event_frame(rows, "timestamp"), split="random")
    times = dataset.test.interactions.times
    assert times is not None
    assert times.mean() == pytest.approx(9.5, abs=0.7)  # standard error 0.2
    assert set(times.tolist()) == set(range(20))


def test_leave_last_out_holds_out_the_last_two_events() -> None:
    rows = [("a", "x", 30), ("a", "y", 10), ("a", "z", 20), ("a", "w", 5), ("b", "x", 1), ("b", "y", 2)]
    dataset = Dataset.from_frame(event_frame(rows, "timestamp"), split="leave-last-out")
    user_a = {("a", "x"): 2, ("a", "z"): 1, ("a", "y"): 0, ("a", "w"): 0}
    assert parts_by_ids(dataset) == user_a | {("b", "x"): 0, ("b", "y"): 0}


def test_leave_last_out_goes_by_position_before_timestamp_and_not_by_row_order_in_ties() -> None:
    events = random_events(5)
    shuffled = events.sample(fraction=1, shuffle=True, seed=2)
    assert parts_by_ids(Dataset.from_frame(events, split="leave-last-out")) == parts_by_ids(
        Dataset.from_frame(shuffled, split="leave-last-out")
    )
    rows = [("a", "x", 3, 10), ("a", "y", 2, 20), ("a", "z", 1, 30)]
    dataset = Dataset.from_frame(event_frame(rows, "position", "timestamp"), split="leave-last-out")
    assert parts_by_ids(dataset) == {("a", "x"): 2, ("a", "y"): 1, ("a", "z"): 0}


def parts_in_time(events: pl.DataFrame) -> dict[object, int]:
    """Item id -> part by --split time."""
    return {item: part for (_, item), part in parts_by_ids(Dataset.from_frame(events, split="time")).items()}


def test_time_split_cuts_at_the_same_time_for_all_and_keeps_a_second_together() -> None:
    rows = [(f"u{i % 4}", f"i{i}", i) for i in range(20)]
    frame = event_frame(rows, "timestamp")
    assert parts_in_time(frame) == {f"i{i}": 0 if i < 16 else 1 if i < 18 else 2 for i in range(20)}
    tied = frame.with_columns(timestamp=pl.col("timestamp").replace({17: 18, 15: 16}))
    assert parts_in_time(tied) == {f"i{i}": 0 if i < 15 else 1 if i < 17 else 2 for i in range(20)}


def test_time_split_of_events_with_the_same_time_is_an_error() -> None:
    frame = random_events().with_columns(timestamp=pl.lit(7))
    with pytest.raises(ValueError, match="share one timestamp"):
        Dataset.from_frame(frame, split="time")


def test_a_repeat_does_not_move_an_earlier_event_to_the_end() -> None:
    """The first of repeats stays: keeping the latest would remove x from the history before y and z."""
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("a", "x", 9)]
    events = event_frame(rows, "timestamp")
    dataset = Dataset.from_frame(events, split="leave-last-out")
    assert parts_by_ids(dataset) == {("a", "x"): 0, ("a", "y"): 1, ("a", "z"): 2}
    latest = Dataset.from_frame(events, split="none")
    assert latest.interactions.times.tolist() == [2, 3, 9]


def test_none_holds_nothing_out() -> None:
    dataset = Dataset.from_frame(random_events(), split="none")
    assert not dataset.part.any()
    assert len(dataset.train.interactions) == len(dataset.interactions)


@pytest.mark.parametrize("split", ["leave-last-out", "time"])
def test_splits_in_time_without_times_are_an_error(split: str) -> None:
    with pytest.raises(ValueError, match=f"`split` {split}"):
        Dataset.from_frame(random_events().drop("timestamp"), split=split)


def test_an_unknown_split_is_an_error_that_names_the_known_ones() -> None:
    dataset = Dataset.from_frame(random_events())
    hashes = dataset.user_ids.hashes, dataset.item_ids.hashes
    for call in (
        lambda: Dataset.from_frame(random_events(), split="by luck"),
        lambda: assign_parts(dataset.interactions, *hashes, "by luck"),
    ):
        with pytest.raises(ValueError, match="'by luck' is unknown") as error:
            call()
        assert all(rule in str(error.value) for rule in RULES)


def test_the_dataset_says_how_it_was_split() -> None:
    split = description_of(Dataset.from_frame(random_events(), split="random", seed=3)).split
    assert split == SplitDescription(method="random", seed=3, rule=RULES["random"])


def test_a_split_table_gives_the_parts_by_letter_and_by_word(tmp_path: Path) -> None:
    events = pl.DataFrame({"user_id": ["1", "1", "1", "1"], "item_id": ["01", "2", "3", "4"]})
    header, rows = (
        "userId\titemId\tseed_0\tsplit",
        "1\t01\tt\ttest\n1\t2\tv\tvalidation\n1\t3\te\ttrain\n9\t9\tt\ttrain\n",
    )
    path = written(tmp_path / "parts.tsv", f"{header}\n{rows}")
    letters = Dataset.from_frame(events, split=path)
    assert parts_by_ids(letters) == {
        ("1", "01"): 0,
        ("1", "2"): 1,
        ("1", "3"): 2,
    }  # item 4 has no row: left out
    by_name = Dataset.from_frame(events, split=path, split_column="split")
    assert parts_by_ids(by_name) == {("1", "01"): 2, ("1", "2"): 1, ("1", "3"): 0}
    assert description_of(by_name).rules[-1].rule == "named in column split of parts.tsv"
    assert description_of(by_name).rules[-1].events == 1


def test_a_split_table_of_text_meets_integer_ids() -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [5, 6]})
    table = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["6", "5"], "seed_0": ["e", "t"]})
    assert parts_by_ids(Dataset.from_frame(events, split=table)) == {(1, 5): 0, (1, 6): 2}


def test_a_split_table_without_the_column_or_with_other_values_is_an_error() -> None:
    events = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["5", "6"]})
    table = pl.DataFrame(
        {"user_id": ["1", "1"], "item_id": ["6", "5"], "seed_0": ["e", "x"], "seed_1": ["e", None]}
    )
    with pytest.raises(ValueError, match=r"no column 'seed_7': choose a `split_column` of seed_0, seed_1"):
        Dataset.from_frame(events, split=table, seed=7)
    with pytest.raises(ValueError, match="the split, row 2, column seed_0: 'x'"):
        Dataset.from_frame(events, split=table)
    with pytest.raises(ValueError, match="the split, row 2, column seed_1: an empty cell"):
        Dataset.from_frame(events, split=table, seed=1)
