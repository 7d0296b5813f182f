"""Runs of earlier versions: the settings of the system that they lack keep what those versions did."""

import shutil
from dataclasses import fields, replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec import load
from cllm4rec.models import SYSTEMS, system_config
from cllm4rec.models.description import FORMAT_VERSION
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.support.backbones import sign_run
from tests.support.commands import call, stage_settings
from tests.support.damage import sign_again

EARLIER = system_config("cllm4rec").added_settings
# The settings of each system when format 6 of model.json began. A new format begins a new list.
FORMAT = 6
SETTINGS = {
    "cllm4rec": (
        "attention backbone chat_template content_ratio content_warmup dtype encoder "
        "item_text item_vectors linear mask_share mutual order prior readout revision sampled "
        "start targets text_rate tune user_dropping user_token word_dropout"
    ),
    "rsllm": (
        "alpha backbone beta candidates chat_template dropout dtype hard length negatives "
        "prompt revision sequential temperature title_words tune"
    ),
    "sasrec": ("dropout encoder heads item_text item_vectors layers length text_rate width word_dropout"),
    "gru4rec": "dropout encoder item_text item_vectors layers length text_rate width word_dropout",
    "bsarec": (
        "dropout encoder filter_share frequencies heads item_text item_vectors layers length "
        "text_rate width word_dropout"
    ),
    "multvae": "annealing beta dropout latent_width width",
    "recvae": "dropout encoder_passes gamma latent_width width",
    "bag": "encoder item_text item_vectors mask_share text_rate width word_dropout",
    "alpharec": "encoder hidden_width item_vectors layers negatives temperature width",
    "ials": "alpha factors iterations regularization seed",
    "ease": ("decay encoder item_vectors prior_regularization prior_share regularization text_prior"),
    "itemknn": "decay neighbours shrinkage",
    "popularity": "",
}


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
def test_each_added_setting_has_a_value_for_what_earlier_versions_did(system: str) -> None:
    assert FORMAT_VERSION == FORMAT
    config_class, earlier = system_config(system), SETTINGS[system].split()
    assert {field.name for field in fields(config_class)} - set(earlier) == set(config_class.added_settings)
    config = config_class()
    record = {name: getattr(config, name) for name in earlier}
    assert config_class.from_record(record, "model.json") == replace(config, **config_class.added_settings)
    assert config_class.from_record(vars(config), "model.json") == config


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
