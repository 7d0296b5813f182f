"""What a run folder records, and which runs and datasets are refused."""

import json
import math
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cllm4rec import pretrain
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder
from tests.support.training import small_dataset


@pytest.fixture(scope="module")
def run_and_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder of two epochs, and its dataset folder."""
    folder = tmp_path_factory.mktemp("run")
    small_dataset().save(folder / "data")
    arguments = ["--dataset", folder / "data", "--output", folder / "run", "--epochs", 2, "--seed", 11]
    pretrain.main([str(argument) for argument in arguments])
    return folder / "run", folder / "data"


def changed(path: Path, **values: Any) -> None:
    """Sets fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def copied(run_and_data: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(run_and_data[0], tmp_path / "run", copy_function=shutil.copyfile))


def test_run_json_says_what_was_run_on_which_data_with_which_versions(
    run_and_data: tuple[Path, Path],
) -> None:
    run, data = run_and_data
    about = json.loads((run / "run.json").read_text())
    assert about["format_version"] == 4
    assert about["system"] == "cllm4rec"
    assert {"cllm4rec", "python", "torch", "transformers", "accelerate", "numpy"} <= set(about["versions"])
    described = json.loads((data / "dataset.json").read_text())
    for name in ("data_sha256", "split_sha256"):
        assert about["dataset"][name] == described[name]
        assert len(about["dataset"][name]) == 64
    assert Path(about["dataset"]["path"]) == data.resolve()
    stage = about["stages"]["pretrain"]
    assert stage["training"]["seed"] == 11
    assert stage["training"]["epochs"] == 2
    assert set(stage["training"]) == {field.name for field in fields(TrainConfig)}
    assert set(stage["system"]) == {field.name for field in fields(CLLM4RecConfig)}
    assert stage["n_processes"] == 1


def test_run_json_of_a_one_stage_system_holds_its_chosen_settings(tmp_path: Path) -> None:
    small_dataset().save(tmp_path / "data")
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    pretrain.main(["--system", "ease", "--dataset", data, "--output", run])
    description = RunFolder.open(tmp_path / "run").description
    assert description.system == "ease"
    regularization = description.stages["pretrain"].system["regularization"]
    assert isinstance(regularization, float) and regularization > 0
    assert load(tmp_path / "run").config.regularization == regularization


def test_metrics_hold_a_line_an_epoch_with_losses_norms_cosine_and_speed(
    run_and_data: tuple[Path, Path],
) -> None:
    lines = [json.loads(line) for line in (run_and_data[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2], (
        "one epoch of content alone, then the two requested"
    )
    for line in lines:
        assert line["stage"] == "pretrain"
        assert {"content", "content mutual", "content prior"} <= set(line["losses"])
        assert set(line["diagnostics"]) == {"cos(z^l, z^c)"}
        assert -1.0001 <= line["diagnostics"]["cos(z^l, z^c)"] <= 1.0001
        assert line["seconds"] > 0
        assert line["tokens_per_second"] > 0
        values = [*line["losses"].values(), *line["gradient_norms"].values()]
        assert all(math.isfinite(value) and value >= 0 for value in values)
    for line in lines[1:]:
        assert {"collaborative", "collaborative mutual", "collaborative prior"} <= set(line["losses"])
        assert set(line["gradient_norms"]) == {"z^l", "z^c", "texts", "backbone"}
        assert 0 <= line["validation"] <= 1
        assert isinstance(line["best"], bool)
    assert any(line["best"] for line in lines)


def test_a_run_folder_loads_by_itself_and_scores(run_and_data: tuple[Path, Path]) -> None:
    run, data = run_and_data
    model, dataset = load(run), Dataset.load(data)
    assert model.name == "cllm4rec"
    assert np.isfinite(model.score(np.arange(3), dataset.train)).all()


def test_an_unknown_format_version_is_refused_clearly(copied: Path) -> None:
    changed(copied / "run.json", format_version=99)
    with pytest.raises(ValueError, match=r"format_version 99 is unknown.*reads 4"):
        load(copied)


def test_a_dataset_prepared_anew_is_refused_clearly(copied: Path, tmp_path: Path) -> None:
    dataset = small_dataset()
    resplit = replace(dataset, part=np.roll(dataset.part, 1))
    resplit.save(tmp_path / "other")
    with pytest.raises(ValueError, match="split_sha256 differs.*prepared anew"):
        RunFolder.open(copied).dataset(tmp_path / "other")
    fewer = dataset.interactions.select(np.arange(len(dataset.part)) != 5)
    replace(dataset, interactions=fewer, part=np.delete(dataset.part, 5)).save(tmp_path / "fewer")
    with pytest.raises(ValueError, match="data_sha256 differs.*prepared anew"):
        RunFolder.open(copied).dataset(tmp_path / "fewer")


def test_the_same_dataset_is_accepted_in_another_folder(copied: Path, tmp_path: Path) -> None:
    small_dataset().save(tmp_path / "moved")
    assert RunFolder.open(copied).dataset(tmp_path / "moved").n_items == small_dataset().n_items


def test_a_folder_that_is_no_run_is_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder"):
        load(tmp_path)


def test_a_run_with_weights_is_never_overwritten(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not empty"):
        RunFolder.create(copied, "cllm4rec", small_dataset(), tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("chapter one")
    with pytest.raises(ValueError, match="exists and is not empty"):
        RunFolder.create(tmp_path / "notes", "cllm4rec", small_dataset(), tmp_path)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "chapter one"


def test_a_repeated_stage_replaces_only_its_metrics(copied: Path) -> None:
    run = RunFolder.open(copied)
    record = EpochRecord(0, {"recommend": 1.0}, {}, {}, 0.5, 1.0, 10.0, True)
    run.begin_stage("finetune", StageSettings(system={}, training={}))
    run.record("finetune", record)
    run.begin_stage("finetune", StageSettings(system={}, training={}))
    run.record("finetune", record)
    assert [line.stage for line in run.metrics()] == ["pretrain"] * 3 + ["finetune"]
    assert set(run.description.stages) == {"pretrain", "finetune"}
