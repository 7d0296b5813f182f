"""Damage of datasets, models and run folders is noticed and refused in one line."""

import shutil
from pathlib import Path

import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.files.manifest import MANIFEST, check_manifest
from cllm4rec.models import load
from cllm4rec.models.base import Recommender
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call
from tests.support.damage import SYSTEMS, flips, header_length, resume
from tests.support.tables import refused


@pytest.mark.parametrize(
    "name", ["events.parquet", "users.parquet", "items.parquet", "dataset.json", MANIFEST]
)
def test_a_flipped_bit_in_a_dataset_is_noticed_when_it_is_loaded(name: str, dataset: Path) -> None:
    for flip in flips(dataset / name, 100):
        assert "prepare the dataset again" in refused(Dataset.load, dataset), flip
    Dataset.load(dataset)


@pytest.mark.parametrize("stage", SYSTEMS, indirect=True)
def test_a_flipped_bit_in_a_model_is_noticed(stage: Path) -> None:
    mapped = load(stage.parent).name != "itemknn"  # ItemKNN checks its indices
    small = [file for file in stage.rglob("*") if file.is_file() and file.suffix != ".safetensors"]
    for file in small:
        for flip in flips(file, 6):
            assert "train this stage again" in refused(load, stage.parent), (file, flip)
    weights = stage / "model.safetensors"
    for flip in flips(weights, 10, slice(0, header_length(weights))):
        assert "is damaged (model.safetensors" in refused(load, stage.parent), flip
    for flip in flips(weights, 10, slice(header_length(weights), None)):
        if mapped:
            load(stage.parent)  # read on access only
        assert "model.safetensors differs" in refused(load, stage.parent, verify=True), flip
    load(stage.parent, verify=True)


@pytest.mark.parametrize("stage", ["ease"], indirect=True)
def test_a_flipped_bit_in_run_json_is_noticed(stage: Path) -> None:
    for flip in flips(stage.parent / "run.json", 100):
        assert "run.json" in refused(RunFolder.open, stage.parent), flip


def test_a_flipped_bit_in_a_state_file_is_noticed_on_resume(interrupted: Path) -> None:
    state = RunFolder(interrupted).resume_file("pretrain").path
    for flip in flips(state, 40):
        assert "pretrain-state.safetensors is damaged" in refused(resume, interrupted), flip
    resume(interrupted)
    assert RunFolder(interrupted).ended("pretrain") and not state.exists()


@pytest.mark.parametrize("stage", ["ease"], indirect=True)
@pytest.mark.parametrize("command", ["evaluate", "recommend"])
def test_the_commands_verify_weights_when_asked(command: str, stage: Path, data: Path) -> None:
    arguments = ["--run", stage.parent, *([] if command == "evaluate" else ["--all"])]
    call(command, *arguments, "--verify")
    weights = stage / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    call(command, *arguments)
    assert "model.safetensors differs from its SHA-256" in refused(call, command, *arguments, "--verify")


@pytest.mark.parametrize("stage", ["cllm4rec"], indirect=True)
def test_damaged_metrics_are_one_line(stage: Path) -> None:
    metrics = stage.parent / "metrics.jsonl"
    for text in ("{", '{"stage": "pretrain"}\n', "[" * 100_000, '{"stage": 1}\n', "\udcff"):
        metrics.write_text(text, errors="surrogateescape")
        assert "metrics.jsonl is damaged" in refused(lambda: RunFolder.open(stage.parent).metrics())


def test_a_missing_and_an_unknown_file_are_named(dataset: Path) -> None:
    (dataset / "more.parquet").write_bytes(b"")
    assert "it holds more.parquet, which is not listed in manifest.json: move it" in refused(
        Dataset.load, dataset
    )
    (dataset / "more.parquet").unlink()
    (dataset / ".DS_Store").write_bytes(b"")  # hidden files are not looked at
    Dataset.load(dataset)
    (dataset / "users.parquet").unlink()
    assert "users.parquet is missing" in refused(Dataset.load, dataset)
    (dataset / MANIFEST).unlink()
    assert "no manifest.json: an earlier version wrote the folder" in refused(Dataset.load, dataset)


@pytest.mark.parametrize("system", ["sasrec", "ease"])
def test_weights_are_checked_whole_when_a_stage_ends(
    system: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that returns another bit than was written; it is noticed before the stage counts as ended."""
    run, write = tmp_path / "run", Recommender._write

    def damaging(model: Recommender, folder: Path) -> None:
        write(model, folder)
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)

    flags = ["--epochs", 1] if system == "sasrec" else ["--regularization", 10]
    with monkeypatch.context() as context:
        context.setattr(Recommender, "_write", damaging)
        message = refused(call, "pretrain", "--system", system, "--dataset", data, "--output", run, *flags)
    assert "model.safetensors differs" in message
    assert not RunFolder(run).ended("pretrain")
    resume(run)
    assert RunFolder(run).ended("pretrain")
    check_manifest(run / "pretrain", whole=True)


@pytest.mark.parametrize("stage", ["sasrec"], indirect=True)
def test_a_stage_that_is_gone_or_of_another_run_is_refused(stage: Path, runs: Path, tmp_path: Path) -> None:
    shutil.rmtree(stage)
    assert f"{stage} is missing or holds no model.json: train this stage again" in refused(load, stage.parent)
    shutil.copytree(runs / "popularity" / "pretrain", stage)
    assert f"{stage} is not the one that this run trained" in refused(load, stage.parent)
