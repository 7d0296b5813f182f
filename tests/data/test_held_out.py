"""Tables of held-out rows: a history and a target for each row."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_events
from tests.support.datasets import description_of
from tests.support.event_files import prepare_dataset
from tests.support.tables import refused, written

EVENTS = "user_id\titem_id\ttimestamp\trating\treview\n" + "".join(
    f"u{u}\ti{i}\t{10 * u + i}\t{1 + i % 5}\tof {u} on {i}\n" for u in range(4) for i in range(6)
)


def user_events(dataset: Dataset, user: object) -> list[tuple[str, int]]:
    """Return (item id, number of the part) of a user's events in order."""
    of_user = dataset.interactions.users == dataset.user_ids.index([user])[0]
    items = dataset.item_ids.names(dataset.interactions.items[of_user]).to_list()
    return list(zip(items, dataset.part[of_user].tolist(), strict=True))


def test_held_out_rows_of_named_users(tmp_path: Path) -> None:
    written(tmp_path / "e.tsv", EVENTS)
    rows = "split\tuser_id\thistory_items\ttarget_item\nval\tu1\ti4 i2\ti0\ntest\tu2\ti5 new\ti1\n"
    written(tmp_path / "s.tsv", rows)
    flags = ["--interactions", tmp_path / "e.tsv", "--split", tmp_path / "s.tsv"]
    dataset = prepare_dataset(tmp_path, *flags)
    assert user_events(dataset, "u1") == [("i4", 3), ("i2", 3), ("i0", 1)]
    assert user_events(dataset, "u2") == [("i5", 3), ("new", 3), ("i1", 2)]
    assert user_events(dataset, "u0") == [(f"i{i}", 0) for i in range(6)]
    of_user = dataset.interactions.users == dataset.user_ids.index(["u1"])[0]
    assert dataset.interactions.times[of_user].tolist() == [14, 12, 10]
    assert dataset.interactions.reviews.filter(pl.Series(of_user)).to_list() == [
        "of 1 on 4",
        "of 1 on 2",
        "of 1 on 0",
    ]
    split = description_of(dataset).split
    assert split.n_validation_rows == split.n_test_rows == 1
    for more in (["--min-rating", "3"], ["--k-core", "2"], ["--preset", "paper"]):
        assert "held-out rows are exact" in refused(prepare_dataset, tmp_path, *flags, *more)


def test_held_out_rows_without_users_are_new_users(tmp_path: Path) -> None:
    written(tmp_path / "e.tsv", EVENTS)
    written(
        tmp_path / "s.tsv", "split\thistory_items\ttarget_item\nval\ti0 i1\ti2\ntest\ti9\ti3\nval\ti5\ti4\n"
    )
    events, table = read_events(tmp_path / "e.tsv"), read_split_table(tmp_path / "s.tsv").frame
    dataset = Dataset.from_frame(events, split=table)
    assert user_events(dataset, "val-1") == [("i0", 3), ("i1", 3), ("i2", 1)]
    assert user_events(dataset, "val-2") == [("i5", 3), ("i4", 1)]
    assert user_events(dataset, "test-1") == [("i9", 3), ("i3", 2)]
    assert (dataset.n_users, len(dataset.train.interactions), len(dataset.seen.interactions)) == (7, 24, 28)
    with pytest.raises(ValueError, match="'val-1' is to be made, and is in the events"):
        Dataset.from_frame(events.with_columns(user_id=pl.lit("val-1")), split=table)


def test_held_out_rows_match_whole_numbers() -> None:
    events = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5]})
    rows = pl.DataFrame({"user_id": [2], "history_items": ["6 7"], "target_item": [5], "split": ["test"]})
    dataset = Dataset.from_frame(events, split=rows)
    assert (dataset.users.schema["user_id"], dataset.items.schema["item_id"]) == (pl.Int64, pl.Int64)
    assert user_events(dataset, 2) == [(6, 3), (7, 3), (5, 2)]
    new = Dataset.from_frame(events, split=rows.drop("user_id"))
    assert sorted(new.user_ids.ids) == ["1", "2", "test-1"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            "split\tuser_id\thistory_items\ttarget_item\ntrain\tu1\ti1\ti2\n",
            "line 2, column split: 'train': expected val or test",
        ),
        ("split\tuser_id\thistory_items\ttarget_item\nval\tu1\t\ti2\n", "line 2, column history_items"),
        (
            "split\tuser_id\thistory_items\ttarget_item\nval\tu1\ti1 i2\ti2\n",
            "line 2, column target_item: 'i2': a row with each item once",
        ),
        (
            "split\tuser_id\thistory_items\ttarget_item\nval\tu1\ti1\ti2\ntest\tu1\ti3\ti4\n",
            "line 3, column user_id: 'u1': expected one row for each user",
        ),
        ("split\thistory_items\nval\ti1\n", "no column for target_item"),
    ],
)
def test_invalid_held_out_rows_are_refused(tmp_path: Path, rows: str, words: str) -> None:
    written(tmp_path / "e.tsv", EVENTS)
    written(tmp_path / "s.tsv", rows)
    flags = ["--interactions", tmp_path / "e.tsv", "--split", tmp_path / "s.tsv"]
    assert words in refused(prepare_dataset, tmp_path, *flags)
    assert not (tmp_path / "data").exists()
