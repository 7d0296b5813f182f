"""The dataset folder: loading gives back what was saved, and nothing foreign is replaced."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.description import DatasetHashes
from cllm4rec.data.synthetic import taste_world
from cllm4rec.files.manifest import write_manifest
from tests.support.datasets import description_of, random_events, same_dataset


def test_the_tie_order_is_stored_and_computed_alike(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(taste_world(1, n_users=20, n_items=50, n_events=8).events, split="random")
    dataset.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    assert loaded.stored_tie_order is not None
    for subset in (loaded, loaded.train, loaded.only("train", "test")):
        np.testing.assert_array_equal(subset.tie_order, dataset.tie_order)
    assert loaded.items.equals(dataset.items)
    np.testing.assert_array_equal(replace(loaded, stored_tie_order=None).tie_order, dataset.tie_order)
    assert loaded.fingerprint == dataset.fingerprint


def test_a_folder_round_trip_gives_the_same_dataset(tmp_path: Path) -> None:
    items = pl.DataFrame(
        {"item_id": [f"i{i}" for i in range(25)], "title": [f"Title {i}" for i in range(25)], "brand": "é"}
    )
    users = pl.DataFrame({"user_id": ["u1"], "biography": ["likes\ntea"]})
    dataset = Dataset.from_frame(random_events(8), items, users, split="random", k_core=2, seed=5)
    dataset.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    assert same_dataset(dataset, loaded)
    assert loaded.fingerprint == dataset.fingerprint
    assert loaded.split_fingerprint == dataset.split_fingerprint
    assert loaded.item_texts == dataset.item_texts
    assert loaded.user_texts == dataset.user_texts
    assert loaded.description == dataset.description
    assert loaded.description is not None
    assert loaded.stored_hashes == DatasetHashes(dataset.fingerprint, dataset.split_fingerprint)
    loaded.save(tmp_path / "again")
    assert same_dataset(dataset, Dataset.load(tmp_path / "again"))
    first, second = (tmp_path / name / "dataset.json" for name in ("data", "again"))
    assert first.read_text() == second.read_text()


def test_the_counts_in_the_folder_are_those_of_the_events_saved(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(random_events(8), split="random")
    dataset.save(tmp_path / "data")
    for name, subset in (("fresh", dataset.train), ("loaded", Dataset.load(tmp_path / "data").train)):
        subset.save(tmp_path / name)
        about = json.loads((tmp_path / name / "dataset.json").read_text())
        n = len(dataset.train.interactions)
        assert about["n_events"] == n
        assert about["n_events_by_part"] == {"train": n, "validation": 0, "test": 0, "history": 0}


def test_another_format_version_and_a_folder_without_a_dataset_are_clear_errors(tmp_path: Path) -> None:
    Dataset.from_frame(random_events(), split="random").save(tmp_path / "data")
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(ValueError, match="format_version 99 is unknown.* prepare the dataset again"):
        Dataset.load(tmp_path / "data")
    with pytest.raises(ValueError, match="not a dataset folder"):
        Dataset.load(tmp_path)


def test_save_does_not_replace_a_file_or_a_foreign_folder(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(random_events(), split="random")
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.txt").write_text("meow")
    (tmp_path / "file").write_text("x")
    for output in (foreign, tmp_path / "file"):
        with pytest.raises(ValueError, match="name another one"):
            dataset.save(output)
    assert (foreign / "cat.txt").read_text() == "meow"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


def test_save_replaces_an_older_dataset_and_fills_an_empty_folder(tmp_path: Path) -> None:
    first = Dataset.from_frame(random_events(1), split="random")
    second = Dataset.from_frame(random_events(2, reviews=False), split="random")
    (tmp_path / "data").mkdir()
    first.save(tmp_path / "data")
    (tmp_path / "data" / "stale.txt").write_text("a listed file of the older dataset")
    write_manifest(tmp_path / "data")
    second.save(tmp_path / "data")
    assert same_dataset(Dataset.load(tmp_path / "data"), second)
    assert not (tmp_path / "data" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    second.save(tmp_path / "new" / "folders" / "data")
    assert same_dataset(Dataset.load(tmp_path / "new" / "folders" / "data"), second)


def test_a_folder_that_holds_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(random_events(1), split="random")
    dataset.save(tmp_path / "data")
    (tmp_path / "data" / "notes.txt").write_text("foreign")
    message = "data holds notes.txt, which is not a file of this package: move it"
    with pytest.raises(ValueError, match=message):
        dataset.save(tmp_path / "data")
    assert (tmp_path / "data" / "notes.txt").read_text() == "foreign"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(random_events(1), split="random")
    unwritable = replace(dataset, description=replace(description_of(dataset), warnings=(object(),)))
    with pytest.raises(TypeError):
        unwritable.save(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    dataset.save(tmp_path / "data")
    with pytest.raises(TypeError):
        unwritable.save(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert same_dataset(Dataset.load(tmp_path / "data"), dataset)


@pytest.mark.parametrize("damaged", ["events.parquet", "items.parquet", "dataset.json"])
def test_a_damaged_dataset_folder_ends_in_an_error_that_names_it(damaged: str, tmp_path: Path) -> None:
    Dataset.from_frame(pl.DataFrame({"user_id": ["ann"], "item_id": ["x"]})).save(tmp_path / "data")
    (tmp_path / "data" / damaged).write_text("{ not this")
    with pytest.raises(ValueError, match="data is damaged"):
        Dataset.load(tmp_path / "data")
