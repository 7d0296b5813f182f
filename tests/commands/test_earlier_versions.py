"""Runs of an earlier version, which had fewer settings: what that version did is done again."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from cllm4rec import load
from cllm4rec.models import SYSTEMS, system_config
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.support.backbones import sign_run
from tests.support.commands import call, stage_settings
from tests.support.damage import sign_again

EARLIER = system_config("cllm4rec").unrecorded


@pytest.fixture
def run(workspace: Path, tmp_path: Path) -> Path:
    """A finetuned CLLM4Rec whose files lack the settings of later versions."""
    run = tmp_path / "run"
    shutil.copytree(workspace / "run", run)
    description = RunFolder(run).description
    for name, stage in description.stages.items():
        for setting in EARLIER:
            del stage.system[setting]
        sign_again(run / name, "model.json", lambda model: [model["config"].pop(name) for name in EARLIER])
    (run / "run.json").write_text(signed_text(description))
    sign_run(run)
    return run


def settings(run: Path) -> dict[str, object]:
    return {
        name: value for name, value in stage_settings(run, "finetune")["system"].items() if name in EARLIER
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_an_earlier_version_did_is_a_value_of_the_setting(system: str) -> None:
    config_class = system_config(system)
    config = config_class.recorded({}, "model.json")
    assert {name: getattr(config, name) for name in config_class.unrecorded} == config_class.unrecorded
    assert config_class.recorded(vars(config_class()), "model.json") == config_class()


def test_its_model_is_trained_further_as_it_was(run: Path) -> None:
    config = load(run).config
    assert {name: getattr(config, name) for name in EARLIER} == EARLIER
    assert {name: getattr(system_config("cllm4rec")(), name) for name in EARLIER} != EARLIER


def test_it_is_finetuned_as_it_was_unless_told_otherwise(run: Path) -> None:
    call("finetune", "--run", run, "--epochs", 1)
    assert settings(run) == EARLIER
    call("finetune", "--run", run, "--epochs", 1, "--content-passes", "pretraining")
    assert settings(run) == EARLIER | {"content_passes": "pretraining"}


def test_it_is_extended_as_it_was(run: Path, tmp_path: Path) -> None:
    events = pl.DataFrame({"user_id": "ann", "item_id": load(run).item_ids.ids[:2]})
    events.write_csv(tmp_path / "events.csv")
    call("extend", "--run", run, "--interactions", tmp_path / "events.csv", "--output", tmp_path / "new")
    assert settings(tmp_path / "new") == EARLIER
