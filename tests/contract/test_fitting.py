"""Every system is fitted reproducibly, saved and loaded without loss."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import shuffled_items, taste_world
from cllm4rec.models import SYSTEMS, system_class, system_config
from cllm4rec.models.base import Recommender
from cllm4rec.models.neural import NeuralRecommender
from tests.support.systems import ONE_STAGE, fit, fitted, new_system, top_items
from tests.support.worlds import taste_dataset

# their settings are chosen on validation events
CHOOSING = [name for name in ONE_STAGE if system_class(name)().grids(taste_dataset())]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_table_of_systems_names_the_settings_of_each(name: str) -> None:
    assert system_config(name) is system_class(name).config_class
    assert bool(system_config(name).training) == issubclass(system_class(name), NeuralRecommender)


def test_same_seed_gives_the_same_lists(name: str, model: Recommender) -> None:
    again = fit(new_system(name), taste_dataset())
    np.testing.assert_array_equal(top_items(model, taste_dataset()), top_items(again, taste_dataset()))


def test_a_second_fit_starts_from_scratch(name: str, model: Recommender) -> None:
    again = fit(fit(new_system(name), taste_dataset(2)), taste_dataset())
    np.testing.assert_array_equal(top_items(model, taste_dataset()), top_items(again, taste_dataset()))


@pytest.mark.parametrize("name", CHOOSING)
def test_a_second_fit_chooses_its_settings_anew(name: str) -> None:
    system, settings = system_class(name), {"factors": 16} if name == "ials" else {}
    shuffled = shuffled_items(taste_world(3, n_users=80, n_items=60, n_events=12).events)
    other_dataset, dataset = Dataset.from_frame(shuffled, split="random"), taste_dataset()
    new = fit(system(system.config_class(**settings)), dataset)
    other = fit(system(system.config_class(**settings)), other_dataset)
    assert other.config != new.config, "the two datasets must call for different settings"
    again = fit(fit(system(system.config_class(**settings)), other_dataset), dataset)
    assert again.config == new.config


def test_saved_and_loaded_model_gives_the_same_lists(name: str, model: Recommender, tmp_path: Path) -> None:
    dataset = taste_dataset()
    model.save(tmp_path)
    loaded = type(model).load(tmp_path)
    np.testing.assert_array_equal(top_items(model, dataset), top_items(loaded, dataset))
    assert loaded.config == model.config


def test_nothing_saved_is_a_pickle(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path)
    kinds = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert kinds <= {".json", ".safetensors", ".parquet"}


def test_an_unknown_system_is_refused_with_the_names_of_the_systems() -> None:
    with pytest.raises(ValueError, match="cllm4rec"):
        system_class("no-such-system")


@pytest.mark.parametrize("name", CHOOSING)
def test_open_settings_without_validation_events_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="validation"):
        system_class(name)().fit(taste_dataset().train)


@pytest.mark.parametrize("name", CHOOSING)
def test_a_given_setting_is_kept_and_the_best_of_the_others_is_chosen(name: str) -> None:
    system = system_class(name)
    grid = system().grids(taste_dataset())[0].fitting
    setting, value = next(iter(grid[-1].items()))
    settings = {"factors": 16} if name == "ials" else {}
    model = fit(system(system.config_class(**settings, **{setting: value})), taste_dataset())
    assert getattr(model.config, setting) == value
    assert all(getattr(model.config, other) is not None for other in grid[0])


@pytest.mark.parametrize("name", [name for name in SYSTEMS if system_config(name).training])
def test_training_a_loaded_model_further_leaves_its_file_alone(name: str, tmp_path: Path) -> None:
    """Loaded weights are mapped pages of the file until they are written to."""
    fitted(name).save(tmp_path)
    file = tmp_path / "model.safetensors"
    before = file.read_bytes()
    model = system_class(name).load(tmp_path)
    assert isinstance(model, NeuralRecommender)
    users, dataset = np.arange(9), taste_dataset()
    np.testing.assert_array_equal(model.score(users, dataset.train), fitted(name).score(users, dataset.train))
    with torch.no_grad():
        for parameter in model._trained().values():
            parameter.add_(1.0)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", [name for name in SYSTEMS if "finetune" in system_config(name).training])
def test_a_later_stage_without_the_first_is_refused(name: str) -> None:
    model = new_system(name)
    assert isinstance(model, NeuralRecommender)
    with pytest.raises(ValueError, match="no network for finetune to train further: fit pretrain first"):
        model.fit_stage(taste_dataset().train, "finetune")
