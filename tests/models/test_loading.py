"""Loading a run or a model folder with its dataset, which is compared with that of training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cllm4rec import Dataset, ItemKNN, ItemKNNConfig, load
from cllm4rec.data.synthetic import taste_world
from tests.support.commands import call
from tests.support.tables import refused
from tests.support.worlds import renumbered, taste_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ItemKNN, whose dataset is in the folder `data` next to it."""
    folder = tmp_path_factory.mktemp("loading")
    taste_dataset().save(folder / "data")
    flags = ("--system", "itemknn", "--neighbours", 10, "--shrinkage", 5)
    call("pretrain", *flags, "--dataset", folder / "data", "--output", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of ItemKNN."""
    folder = tmp_path_factory.mktemp("saved")
    ItemKNN(ItemKNNConfig(neighbours=10, shrinkage=5.0)).fit(taste_dataset()).save(folder)
    return folder


def test_the_dataset_is_given_as_it_is_or_by_its_folder(run: Path, saved: Path) -> None:
    users = taste_dataset().user_ids.ids[:4]
    expected = load(run).recommend(users)
    data = run.with_name("data")
    for folder in (run, saved):
        for dataset in (data, str(data), Dataset.load(data), taste_dataset()):
            assert_frame_equal(load(folder, dataset=dataset).recommend(users), expected)


def test_what_is_no_dataset_is_refused(run: Path) -> None:
    events = taste_world(1, 80, 60, 12).events
    assert "is no dataset: give one, such as Dataset.from_frame" in refused(load, run, dataset=events)
    assert "is not a dataset folder" in refused(load, run, dataset=run)


def test_another_split_of_a_run_is_refused(run: Path, tmp_path: Path) -> None:
    other = taste_dataset(split="leave-last-out")
    other.save(tmp_path)
    for dataset in (other, tmp_path):
        message = refused(load, run, dataset=dataset)
        assert message.startswith(
            f"{run} was trained on another split (split_sha256 differs): give the dataset"
        )


def test_other_events_or_texts_of_the_same_ids_are_refused(run: Path, tmp_path: Path) -> None:
    dataset = taste_dataset()
    items = dataset.interactions.items[np.arange(len(dataset.interactions)) - 1]
    others = [
        replace(dataset, interactions=replace(dataset.interactions, items=items)),
        replace(dataset, items=dataset.items.with_columns(title=pl.lit("Untitled"))),
    ]
    others[0].save(tmp_path)
    for other in (*others, tmp_path):
        message = refused(load, run, dataset=other)
        assert message.startswith(
            f"{run} was trained on another dataset (data_sha256 differs): give the dataset"
        )


def test_other_ids_are_refused_by_name(run: Path, saved: Path) -> None:
    dataset = taste_dataset()
    reordered = renumbered(dataset, np.random.default_rng(5).permutation(dataset.n_items))
    for folder in (run, saved):
        assert f"{folder} was trained on other users: number " in refused(
            load, folder, dataset=taste_dataset(1, 81)
        )
        assert f"{folder} was trained on other items: number 0 is " in refused(
            load, folder, dataset=reordered
        )


def test_a_model_folder_takes_other_events_of_its_users(saved: Path) -> None:
    """It has no events to compare with."""
    later = taste_dataset(split="leave-last-out")
    assert load(saved, dataset=later).source is later
