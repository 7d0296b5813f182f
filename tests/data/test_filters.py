"""Filters by rating, by repeats and by k-core, and the count of dropped events."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import EventFilters, keep_k_core, latest_of_repeats
from tests.support.datasets import description_of, event_frame, random_events


def plain_core(pairs: list[tuple[str, str]], k: int) -> set[tuple[str, str]]:
    """Drops a rare user or item at a time, until none is left."""
    left = set(pairs)
    while True:
        for column in (0, 1):
            names = [pair[column] for pair in left]
            rare = next((name for name in sorted(set(names)) if names.count(name) < k), None)
            if rare is not None:
                left = {pair for pair in left if pair[column] != rare}
                break
        else:
            return left


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_core_is_the_fixed_point_of_dropping(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    cells = np.argwhere(generator.random((25, 20)) < 0.18)
    pairs = [(f"u{user}", f"i{item}") for user, item in cells.tolist()]
    kept = keep_k_core(event_frame(pairs), k)
    assert set(kept.rows()) == plain_core(pairs, k)
    assert len(kept) == len(set(kept.rows()))


def test_the_core_drops_what_only_the_drops_made_rare() -> None:
    """c is dropped, then u3, then d, then u4, then e and u5."""
    core = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b")]
    chain = [*core, ("u3", "c"), ("u3", "d"), ("u4", "d"), ("u4", "e"), ("u5", "e")]
    kept = keep_k_core(event_frame(chain), 2)
    assert kept.rows() == core


def test_of_repeated_events_the_latest_stays() -> None:
    rows = [
        ("u", "i", 5, 1.0),
        ("u", "i", 9, 2.0),
        ("u", "i", None, 3.0),
        ("u", "j", 1, 4.0),
        ("u", "i", 9, 5.0),
        ("v", "i", 2, 6.0),
    ]
    events = event_frame(rows, "timestamp", "rating")
    # Of equal times the later row stays.
    assert sorted(latest_of_repeats(events)["rating"].to_list()) == [4.0, 5.0, 6.0]
    by_position = events.with_columns(position=pl.Series([9, 1, 2, 3, 4, 5]))
    assert sorted(latest_of_repeats(by_position)["rating"].to_list()) == [1.0, 4.0, 6.0]
    assert sorted(latest_of_repeats(events.drop("timestamp"))["rating"].to_list()) == [4.0, 5.0, 6.0]


def test_every_rule_accounts_for_what_it_dropped() -> None:
    rows = [
        ("a", "x", 5.0, 1),
        ("a", "y", 4.0, 2),
        ("a", "y", 5.0, 3),  # repeat
        ("b", "x", 5.0, 1),
        ("b", "y", 4.0, 1),
        ("b", "z", 4.0, 1),  # z is dropped by the 2-core
        ("c", "x", 2.0, 1),  # below 4: c and w are dropped
        ("c", "w", None, 1),  # without a rating
    ]
    events = event_frame(rows, "rating", "timestamp")
    dataset = Dataset.from_frame(events, min_rating=4, k_core=2, split="none")
    dropped = [(report.users, report.items, report.events) for report in description_of(dataset).rules]
    assert dropped == [(0, 0, 1), (1, 1, 2), (0, 1, 1)]
    assert sum(n_events for *_, n_events in dropped) + len(dataset.interactions) == len(events)
    assert [report.rule for report in description_of(dataset).rules] == [
        "latest of repeated events of a user and an item",
        "rating >= 4",
        "2-core",
    ]


@pytest.mark.parametrize(
    ("split", "left"),
    [("random", ["b"]), ("none", ["b"]), ("file", ["b"]), ("leave-last-out", ["a", "b"])],
)
def test_the_rating_that_counts_is_that_of_the_event_that_stays(split: str, left: list[str]) -> None:
    """Rated 5 and later 1: the latest of repeats is below 4. In splits by time the first of repeats stays."""
    rows = [
        ("u", "a", 5, 1),
        ("u", "a", 1, 2),
        ("u", "b", 5, 3),
        ("v", "c", 1, 4),
        ("v", "c", 5, 5),
        ("v", "d", 5, 6),
    ]
    events = event_frame(rows, "rating", "timestamp")
    parts = events.select("user_id", "item_id", seed_0=pl.lit("t")).unique()
    for order in (events, events.reverse()):
        dataset = Dataset.from_frame(order, min_rating=4, split=parts if split == "file" else split)
        names = dataset.item_ids.names(dataset.interactions.items).to_list()
        assert [name for name in sorted(names) if name in "ab"] == left
        assert ("c" in names) == (split != "leave-last-out")
        assert [report.rule.split()[0] for report in description_of(dataset).rules][-1] == "rating"
        assert "of repeats the" in description_of(dataset).split.rule
        assert "with its rating" in description_of(dataset).split.rule


def test_a_latest_event_without_a_rating_is_not_liked() -> None:
    rows = [("u", "a", 5.0, 1), ("u", "a", None, 2), ("u", "b", 5.0, 3)]
    events = event_frame(rows, "rating", "timestamp")
    dataset = Dataset.from_frame(events, min_rating=4, split="none")
    assert dataset.items["item_id"].to_list() == ["b"]


def test_a_core_holds_after_a_split_file_has_left_out_events() -> None:
    """The split file lacks the event of c: user v and then item d fall below the 2-core."""
    rows = [("u", "a"), ("u", "b"), ("w", "a"), ("w", "b"), ("v", "c"), ("v", "d"), ("w", "d")]
    events = event_frame(rows)
    table = events.filter(pl.col("item_id") != "c").with_columns(seed_0=pl.lit("t"))
    dataset = Dataset.from_frame(events, k_core=2, split=table)
    assert sorted(dataset.items["item_id"].to_list()) == ["a", "b"]
    assert sorted(dataset.users["user_id"].to_list()) == ["u", "w"]
    assert description_of(dataset).split.rows_without_events == 0
    assert [report.rule for report in description_of(dataset).rules][1:] == [
        "named in column seed_0 of the split",
        "2-core",
    ]


def test_an_account_reads_as_a_sentence() -> None:
    rules = EventFilters(pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"]}))
    rules.apply("only a", lambda frame: frame.filter(pl.col("user_id") == "a"))
    assert str(rules.reports[0]) == "only a: dropped 1 event, 1 user, 0 items"


def test_a_rating_filter_without_ratings_and_filters_that_leave_nothing_are_errors() -> None:
    events = random_events()
    with pytest.raises(ValueError, match="needs a rating column"):
        Dataset.from_frame(events, split="random", min_rating=4)
    with pytest.raises(ValueError, match="nothing is left"):
        Dataset.from_frame(events, split="random", k_core=1000)
