"""The dataset: events, reviews, parts, fingerprints, histories of new users."""

import json
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from tests.support.datasets import event_frame, parts_by_ids, random_events


def test_no_events_are_an_error() -> None:
    with pytest.raises(ValueError, match="no events"):
        Dataset.from_frame(pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String}))


def test_a_repeated_pair_of_user_and_item_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'ann' has item 'x' more than once"):
        Dataset.from_frame(pl.DataFrame({"user_id": ["ann", "ann"], "item_id": ["x", "x"]}))


def test_reviews_travel_with_their_event_through_sorting_splitting_and_the_folder(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(random_events(6).sample(fraction=1, shuffle=True, seed=0), split="random")
    dataset.save(tmp_path / "data")
    for whole in (dataset, Dataset.load(tmp_path / "data")):
        for subset in (whole, whole.train, whole.validation, whole.test):
            events = subset.interactions
            assert events.reviews is not None
            users, items = subset.user_ids.names(events.users), subset.item_ids.names(events.items)
            expected = [f"{user} on {item}" for user, item in zip(users, items, strict=True)]
            assert events.reviews.to_list() == expected
            assert len(events) > 0


def test_reviews_and_timestamps_may_be_missing_in_cells_or_everywhere(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user_id": ["a", "a"], "item_id": ["x", "y"], "review_text": ["fine", None], "timestamp": [5, None]}
    )
    dataset = Dataset.from_frame(frame)
    assert sorted(dataset.interactions.reviews.to_list()) == ["", "fine"]
    assert dataset.interactions.times.tolist() == [-1, 5]  # an event without a time comes first
    bare = Dataset.from_frame(frame.select("user_id", "item_id"))
    bare.save(tmp_path / "bare")
    assert Dataset.load(tmp_path / "bare").interactions.reviews is None
    assert Dataset.load(tmp_path / "bare").interactions.times is None


def test_parts_keep_all_users_and_items_and_only_the_events_of_the_part() -> None:
    dataset = Dataset.from_frame(random_events(7), split="random")
    together = dataset.only("train", "test")
    assert (together.n_users, together.n_items) == (dataset.n_users, dataset.n_items)
    assert set(together.part.tolist()) == {0, 2}
    assert len(together.interactions) == len(dataset.train.interactions) + len(dataset.test.interactions)
    assert len(dataset.only().interactions) == 0
    pairs = [set(parts_by_ids(subset)) for subset in (dataset.train, dataset.validation, dataset.test)]
    assert set.union(*pairs) == set(parts_by_ids(dataset))
    assert sum(map(len, pairs)) == len(dataset.interactions)


def test_the_part_history_is_seen_and_not_learned_from(tmp_path: Path) -> None:
    events = pl.DataFrame({"user_id": ["a"] * 4, "item_id": list("wxyz"), "position": [0, 1, 2, 3]})
    parts = ["train", "history", "validation", "test"]
    dataset = Dataset.from_frame(events.with_columns(part=pl.Series(parts)))
    dataset.save(tmp_path / "data")
    for copy in (dataset, Dataset.load(tmp_path / "data")):
        assert copy.part.tolist() == [0, 3, 1, 2]
        assert copy.item_ids.names(copy.seen.interactions.items).to_list() == ["w", "x"]
        assert copy.item_ids.names(copy.train.interactions.items).to_list() == ["w"]
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert about["n_events_by_part"] == {"train": 1, "validation": 1, "test": 1, "history": 1}
    for names in (["t", "h", "val", "e"], parts):
        table = events.select("user_id", "item_id", seed_0=pl.Series(names))
        assert Dataset.from_frame(events, split=table).part.tolist() == [0, 3, 1, 2]
    with pytest.raises(ValueError, match="part 'later' is unknown"):
        Dataset.from_frame(events.with_columns(part=pl.lit("later")))


def test_fingerprints_of_events_and_of_the_split_differ_where_these_do() -> None:
    events = random_events(9)
    dataset = Dataset.from_frame(events, split="random")
    changed = events.with_columns(
        review_text=pl.when(pl.arange(pl.len()) == 3).then(pl.lit("!")).otherwise("review_text")
    )
    assert Dataset.from_frame(changed, split="random").fingerprint != dataset.fingerprint
    assert Dataset.from_frame(events.head(len(events) - 1), split="random").fingerprint != dataset.fingerprint
    other_split = Dataset.from_frame(events, split="random", seed=1)
    assert other_split.fingerprint == dataset.fingerprint
    assert other_split.split_fingerprint != dataset.split_fingerprint


def test_histories_of_new_users_keep_the_numbers_of_items() -> None:
    dataset = Dataset.from_frame(pl.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": ["x", "y", "z"]}))
    histories = pl.DataFrame({"user_id": ["carl", "carl"], "item_id": ["z", "x"], "timestamp": [1, 2]})
    new_users = dataset.with_histories(histories)
    assert new_users.item_ids.ids.equals(dataset.item_ids.ids)
    assert new_users.user_ids.ids.to_list() == ["carl"]
    assert new_users.item_ids.names(new_users.interactions.history(0)).to_list() == ["z", "x"]
    with pytest.raises(ValueError, match="item 'w'"):
        dataset.with_histories(pl.DataFrame({"user_id": ["carl"], "item_id": ["w"]}))


def test_of_repeated_events_of_a_history_the_latest_is_kept() -> None:
    dataset = Dataset.from_frame(event_frame([("ann", "x"), ("ann", "y"), ("bob", "z")]))
    rows = [("carl", "x", 1), ("carl", "x", 4), ("carl", "y", 3), ("carl", "z", 2), ("carl", "z", None)]
    histories = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    for frame in (histories, histories.reverse()):
        events = dataset.with_histories(frame).interactions
        assert dataset.item_ids.names(events.items).to_list() == ["z", "y", "x"]
        assert events.times.tolist() == [2, 3, 4]


def test_datasets_and_tasks_print_as_one_short_line(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(random_events(7), split="random")
    n_users, n_items, n = dataset.n_users, dataset.n_items, len(dataset.interactions)
    whole = f"Dataset: {n_users} users, {n_items} items, {n} events (split random)"
    assert repr(dataset) == whole
    dataset.save(tmp_path / "data")
    assert repr(Dataset.load(tmp_path / "data")) == whole
    n_train, n_test = len(dataset.train.interactions), len(dataset.test.interactions)
    assert repr(dataset.train) == whole.replace(f"{n} events", f"{n_train} events")
    assert repr(dataset.task("test")) == (
        f"Task: {n_users} users, {n_items} items; events: {n_train} input, {n_test} held out, "
        f"{n - n_test} masked"
    )
    assert repr(Dataset.from_frame(event_frame([("a", "x")]))) == "Dataset: 1 user, 1 item, 1 event"
