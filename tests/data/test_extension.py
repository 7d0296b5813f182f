"""Datasets with further items, users and events, or fewer users."""

import numpy as np
import polars as pl
import pytest

from cllm4rec import Dataset
from cllm4rec.data.extension import extended, without_users
from tests.support.datasets import parts_by_ids, random_events, size

ITEMS = pl.DataFrame({"item_id": [f"i{n}" for n in range(25)], "title": [f"Title {n}" for n in range(25)]})


def dataset() -> Dataset:
    """30 users, 25 titled items, with times, reviews, a text of each user and a random split."""
    users = pl.DataFrame(
        {"user_id": [f"u{n}" for n in range(30)], "biography": [f"Bio {n}" for n in range(30)]}
    )
    return Dataset.from_frame(random_events(), ITEMS, users, split="random")


def new_items(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"item_id": ids, "title": [f"New {name}" for name in ids]})


def test_known_users_items_and_events_keep_their_numbers_and_parts() -> None:
    before = dataset()
    events = pl.DataFrame(
        {"user_id": ["u3", "x", "x"], "item_id": ["n1", "n1", "i4"], "timestamp": [9, 8, 7]}
    )
    added = extended(before, new_items("n1", "n2"), events)
    after = added.dataset
    assert after.item_ids.ids.to_list()[:25] == before.item_ids.ids.to_list()
    assert sorted(after.item_ids.ids[25:]) == ["n1", "n2"]
    assert after.user_ids.ids.to_list() == [*before.user_ids.ids, "x"]
    assert parts_by_ids(after) == parts_by_ids(before) | {("u3", "n1"): 0, ("x", "n1"): 0, ("x", "i4"): 0}
    assert after.items.filter(pl.col("item_id") == "n2")["title"].item() == "New n2"
    assert after.users["biography"].to_list() == [*before.users["biography"], ""]
    assert sorted(after.tie_order) == list(range(27))
    order = np.argsort(after.tie_order[:25])
    assert (order == np.argsort(before.tie_order)).all()  # of those known
    assert size(added.without_events) == (31, 27, len(before.interactions))
    assert (added.n_repeated, added.n_known_items) == (0, 0)


def test_new_events_follow_those_that_a_user_has_in_time_order() -> None:
    before = dataset()
    events = pl.DataFrame(
        {
            "user_id": ["u3"] * 3,
            "item_id": ["n1", "n2", "n3"],
            "timestamp": [3, 1, 2],
            "review_text": ["a", "b", "c"],
        }
    )
    after = extended(before, new_items("n1", "n2", "n3"), events).dataset
    number = before.user_ids.index(["u3"])[0]
    names = after.item_ids.names(after.interactions.history(number)).to_list()
    assert names == [*before.item_ids.names(before.interactions.history(number)), "n2", "n3", "n1"]
    rows = slice(after.interactions.indptr[number + 1] - 3, after.interactions.indptr[number + 1])
    assert after.interactions.times is not None and after.interactions.reviews is not None
    assert after.interactions.times[rows].tolist() == [1, 2, 3]
    assert after.interactions.reviews[rows].to_list() == ["b", "c", "a"]


def test_known_items_and_events_are_counted_and_left_as_they_are() -> None:
    before = dataset()
    user, item = next(iter(parts_by_ids(before)))
    events = pl.DataFrame({"user_id": [user, "x", "x"], "item_id": [item, "n1", "n1"]})
    items = pl.concat([new_items("n1"), pl.DataFrame({"item_id": ["i4", "n1"], "title": ["Another"] * 2})])
    added = extended(before, items, events)
    assert (added.n_repeated, added.n_known_items, added.n_repeated_items) == (2, 1, 1)
    assert added.dataset.items.filter(pl.col("item_id") == "n1")["title"].item() != "Another"
    assert added.dataset.items.filter(pl.col("item_id") == "i4")["title"].item() == "Title 4"
    assert added.dataset.interactions.times is not None
    assert added.dataset.interactions.times[-1] == -1  # there is no time


def test_new_events_have_the_ratings_that_the_dataset_keeps() -> None:
    """The latest rating of a repeated event counts, and users without a kept event are no new users."""
    frame = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["i", "j", "i"], "rating": [4, 5, 3]})
    before = Dataset.from_frame(frame, split="none", min_rating=3.5)
    assert before.n_users == 1
    rows = [
        ("a", "k", 2, 1),
        ("c", "i", 5, 1),
        ("c", "i", 1, 2),
        ("d", "j", 1, 1),
        ("d", "j", 4, 2),
        ("a", "i", 5, 1),
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    added = extended(before, new_items("k"), events)
    assert parts_by_ids(added.dataset) == parts_by_ids(before) | {("d", "j"): 0}
    assert added.dataset.user_ids.ids.to_list() == ["a", "d"]
    assert (added.n_below, added.n_repeated) == (2, 3)
    again = extended(
        added.dataset, None, pl.DataFrame(rows[-1:] + [("d", "k", 4, 1)], schema=events.schema, orient="row")
    )
    assert again.n_below == 0, "the rule is kept"
    with pytest.raises(
        ValueError, match=r"rating of at least 3\.5, and the new events have no column rating: add"
    ):
        extended(before, None, events.drop("rating"))
    with pytest.raises(ValueError, match=r"no new event has a rating of at least 3\.5"):
        extended(before, new_items("k"), events[:1])


def test_whole_numbers_stay_whole_numbers() -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 11, 10]})
    before = Dataset.from_frame(frame)
    after = extended(before, pl.DataFrame({"item_id": ["12"]})).dataset
    assert after.item_ids.ids.dtype == pl.Int64 and after.item_ids.ids[2] == 12
    with pytest.raises(ValueError, match="item ids of the dataset are whole numbers, and '7a' is none"):
        extended(before, pl.DataFrame({"item_id": ["7a"]}))


def test_what_adds_nothing_and_unknown_items_are_refused() -> None:
    before = dataset()
    with pytest.raises(ValueError, match="there is nothing to extend it by"):
        extended(before, ITEMS)
    events = pl.DataFrame({"user_id": ["u1"], "item_id": ["n9"]})
    with pytest.raises(ValueError, match=r"item 'n9' has new events.*\(1 of 1 unknown\)"):
        extended(before, new_items("n1"), events)


def test_extended_datasets_survive_their_folder(tmp_path: object) -> None:
    after = extended(dataset(), new_items("n1")).dataset
    folder = f"{tmp_path}/data"
    after.save(folder)
    loaded = Dataset.load(folder)
    assert loaded.hashes == after.hashes and loaded.items.equals(after.items)
    assert loaded.description is not None and loaded.description.texts == {"title": 26}


def test_users_are_taken_out_with_their_events_reviews_and_texts() -> None:
    before = dataset()
    after = without_users(before, ["u3", "u7"])
    assert after.user_ids.ids.to_list() == [name for name in before.user_ids.ids if name not in ("u3", "u7")]
    kept = {pair: part for pair, part in parts_by_ids(before).items() if pair[0] not in ("u3", "u7")}
    assert parts_by_ids(after) == kept
    assert after.item_ids.ids.equals(before.item_ids.ids)
    assert after.interactions.reviews is not None
    assert not any(text.startswith(("u3 ", "u7 ")) for text in after.interactions.reviews)
    assert "Bio 3" not in after.users["biography"].to_list()
    with pytest.raises(ValueError, match="user 'nobody' is not in the data"):
        without_users(before, ["nobody"])
    with pytest.raises(ValueError, match="no user is left"):
        without_users(before, before.user_ids.ids.to_list())


@pytest.mark.parametrize("ids", [["a", "b", "c", "d"], [1, 2, 3, 4]])
def test_items_without_events_are_kept_when_told(ids: list[object]) -> None:
    events = pl.DataFrame({"user_id": ["u", "u", "v"], "item_id": [ids[0], ids[1], ids[0]]})
    items = pl.DataFrame({"item_id": ids, "title": ["A", "B", "C", "D"]})
    found = Dataset.from_frame(events, items, split="random", keep_all_items=True)
    assert sorted(found.item_ids.ids.to_list()) == ids
    assert found.items.sort("item_id")["title"].to_list() == ["A", "B", "C", "D"]
    assert found.description is not None and found.description.tables["items"].rows_without_events == 2
    assert Dataset.from_frame(events, items, split="random").n_items == 2
    with pytest.raises(ValueError, match="`keep_all_items` keeps the rows of a table of items"):
        Dataset.from_frame(events, split="random", keep_all_items=True)
