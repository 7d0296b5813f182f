"""`Dataset.from_frame`: frames of each library, splits, filters without a split, arguments without effect."""

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import cllm4rec.data.dataset
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.tables import read_event_table
from cllm4rec.data.splits import RULES
from tests.support.datasets import (
    description_of,
    event_frame,
    parts_by_ids,
    prepared,
    random_events,
    same_dataset,
    size,
)
from tests.support.tables import refused

LIBRARIES: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda frame: frame,
    "pandas": lambda frame: frame.to_pandas(),
    "arrow": lambda frame: frame.to_arrow(),
}
FILTERS: dict[str, Any] = {"min_rating": 2, "k_core": 3, "shuffle_ties": 1, "seed": 5}


def rated_events() -> pl.DataFrame:
    """Random events with repeats, whole numbers as user ids, ratings and a column that is not read."""
    events = random_events(4).with_columns(user_id=pl.col("user_id").str.slice(1).cast(pl.Int64))
    events = pl.concat([events, events.sample(20, seed=0).with_columns(timestamp=pl.lit(1020, pl.Int64))])
    return events.with_columns(rating=(pl.int_range(pl.len()) % 5 + 1).cast(pl.Float64), note=pl.lit("-"))


def titles() -> pl.DataFrame:
    """Titles of some of the items of `rated_events`."""
    return pl.DataFrame({"item_id": [f"i{i}" for i in range(20)], "title": [f"Title {i}" for i in range(20)]})


@pytest.mark.parametrize("split", RULES)
def test_frames_of_each_library_give_the_dataset_that_prepare_makes_of_a_file(
    split: str, tmp_path: Path
) -> None:
    rated_events().write_parquet(tmp_path / "events.parquet")
    titles().write_parquet(tmp_path / "items.parquet")
    flags = ("--items", tmp_path / "items.parquet", "--split", split)
    flags += ("--min-rating", 2, "--k-core", 3, "--shuffle-ties", 1, "--seed", 5)
    expected = prepared(tmp_path / "events.parquet", tmp_path / "data", *flags)
    assert 0 < len(expected.interactions) < len(rated_events())
    for convert in LIBRARIES.values():
        dataset = Dataset.from_frame(convert(rated_events()), convert(titles()), split=split, **FILTERS)
        assert same_dataset(dataset, expected)
        assert dataset.description == expected.description
        assert dataset.hashes == expected.hashes


@pytest.mark.parametrize("library", LIBRARIES)
def test_frames_of_parts_and_of_held_out_rows_are_splits(library: str, tmp_path: Path) -> None:
    events = event_frame([(1, "a"), (1, "b"), (1, "c"), (2, "a"), (2, "b")])
    parts = events.head(3).with_columns(part=pl.Series(["train", "v", "test"]))
    rows = pl.DataFrame({"user_id": [2], "history_items": ["b"], "target_item": ["a"], "split": ["test"]})
    for table, column, expected in (
        (parts, "part", {(1, "a"): 0, (1, "b"): 1, (1, "c"): 2}),
        (rows, None, {(1, "a"): 0, (1, "b"): 0, (1, "c"): 0, (2, "b"): 3, (2, "a"): 2}),
    ):
        split = LIBRARIES[library](table)
        dataset = Dataset.from_frame(LIBRARIES[library](events), split=split, split_column=column)
        assert parts_by_ids(dataset) == expected
        assert description_of(dataset).split.method == "the split"
        table.write_csv(tmp_path / "split.csv")
        by_file = Dataset.from_frame(events, split=tmp_path / "split.csv", split_column=column)
        assert same_dataset(dataset, by_file)
        assert description_of(by_file).split.method == "split.csv"


def test_the_column_part_counts_without_a_split_only() -> None:
    rows = [("u", "a", "history"), ("u", "b", "train"), ("u", "c", "test"), ("u", "d", "validation")]
    events = event_frame(rows, "part").with_columns(timestamp=pl.int_range(4))
    assert parts_by_ids(Dataset.from_frame(events)) == {
        ("u", "a"): 3,
        ("u", "b"): 0,
        ("u", "c"): 2,
        ("u", "d"): 1,
    }
    by_time = {("u", "a"): 0, ("u", "b"): 0, ("u", "c"): 1, ("u", "d"): 2}
    for source in (events, read_event_table(events, also=("part",))):
        assert parts_by_ids(Dataset.from_frame(source, split="leave-last-out")) == by_time
    chosen = Dataset.from_frame(events, split=events, split_column="part")
    assert parts_by_ids(chosen) == parts_by_ids(Dataset.from_frame(events))


def test_filters_without_a_split_are_those_of_a_split() -> None:
    events = rated_events().unique(["user_id", "item_id"], maintain_order=True)
    filters = {name: value for name, value in FILTERS.items() if name != "seed"}
    dataset = Dataset.from_frame(events, **filters)
    assert same_dataset(dataset, Dataset.from_frame(events, split="none", **filters))
    assert size(dataset) < size(Dataset.from_frame(events))
    assert dataset.description is None
    part = pl.Series(["train", "validation", "test"]).gather(pl.int_range(len(events), eager=True) % 3)
    parts = parts_by_ids(Dataset.from_frame(events.with_columns(part=part), **filters))
    expected = dict(zip(events.select("user_id", "item_id").rows(), part.to_list(), strict=True))
    assert parts == {pair: ["train", "validation", "test"].index(expected[pair]) for pair in parts}
    assert parts.keys() == parts_by_ids(dataset).keys()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"split_column": "part"},
            "a column of a split table: give the table as `split`",
        ),
        ({"split": "random", "split_column": "part"}, "`split_column` names a column of a split table"),
        ({"seed": 3}, "`seed` is that of a split, and there is none"),
        (
            {"split": "parts.tsv"},
            "'parts.tsv' is unknown: take one of random, leave-last-out, time, none",
        ),
        ({"split": 0.1}, "the split: expected a pandas, Polars or Arrow table, not float"),
        ({"min_rating": 3}, "`min_rating` needs a rating column"),
        ({"shuffle_ties": 0}, "`shuffle_ties` needs a timestamp column"),
        ({"k_core": 9}, "nothing is left to learn from: 9-core: dropped 1 event"),
    ],
)
def test_arguments_that_are_wrong_or_have_no_effect_are_refused(settings: dict[str, Any], words: str) -> None:
    assert words in refused(Dataset.from_frame, event_frame([("u", "a")]), **settings)


def test_ids_in_an_index_of_pandas_are_refused_with_advice() -> None:
    events = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]})
    message = refused(Dataset.from_frame, events.set_index("user_id"))
    assert "no column for user_id" in message
    assert message.endswith("; its index holds user_id: give frame.reset_index()")
    both = events.assign(rating=1.0).set_index(["user_id", "item_id"])
    assert "its index holds user_id, item_id" in refused(Dataset.from_frame, both)
    items = pd.DataFrame({"item_id": ["a"], "title": ["A"]}).set_index("item_id")
    assert "the items: no column for item_id" in refused(Dataset.from_frame, events, items)
    assert "index" not in refused(Dataset.from_frame, events[["item_id"]])
    assert Dataset.from_frame(both.reset_index()).n_items == 2


def test_the_example_of_the_documentation_runs() -> None:
    results = doctest.testmod(cllm4rec.data.dataset)
    assert (results.attempted, results.failed) == (4, 0)
