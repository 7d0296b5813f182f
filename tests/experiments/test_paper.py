"""The paper's settings on a pretrained backbone: commands, the table, and going on."""

import json
from pathlib import Path

import pytest

from cllm4rec.training.run_folder import RunFolder
from experiments import paper, report
from experiments.commands import Cost
from tests.support.backbones import save_backbone, small_dataset
from tests.support.commands import call


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands run in this process; their names are listed."""
    names: list[str] = []

    def run(command: str, *arguments: object) -> Cost:
        names.append(command)
        call(command, *arguments)
        return Cost(1.0, 1.0, 1.0)

    for module in (paper, report):
        monkeypatch.setattr(module, "run_command", run)
    return names


@pytest.fixture
def data(tmp_path: Path) -> Path:
    small_dataset().save(tmp_path / "books" / "seed0")
    return tmp_path / "books"


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "backbone", titled=True)
    return tmp_path / "backbone"


def test_both_stages_run_with_the_settings_of_the_paper(
    data: Path, backbone: Path, tmp_path: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    paper.main([data], [0], str(backbone), output, minutes=0.001)
    run = output / "books" / "seed0" / "backbone"
    assert started == ["pretrain", "finetune", "evaluate"]
    description = RunFolder.open(run).description
    assert description.preset == "paper"
    for stage, rate in (("pretrain", 1e-3), ("finetune", 1e-4)):
        settings = description.stages[stage]
        assert (settings.system["backbone"], settings.system["linear"]) == (str(backbone), "none")
        assert settings.training is not None
        assert (settings.training["batch_size"], settings.training["learning_rate"]) == (20, rate)
    metrics = json.loads((run / "test.json").read_text())["metrics"]
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    values = [f"{metrics[name]:.4f}" for name in ("recall@20", "recall@40", "ndcg@100")]
    assert cells == ["books, seed 0", "backbone", *values, "0.001 minutes a stage"]
    paper.main([data], [0], str(backbone), output)
    assert len(started) == 3, "an ended run is not run again"


def test_a_dry_run_trains_nothing(
    data: Path, backbone: Path, tmp_path: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paper.main([data], [0], str(backbone), tmp_path / "runs", dry_run=True)
    assert started == ["pretrain"]
    assert not (tmp_path / "runs").exists()
    printed = capsys.readouterr().out
    assert "100 epochs and 10 of warm-up" in printed
    assert printed.splitlines()[-1].count("not run") == 3


def test_a_folder_without_a_dataset_is_refused(data: Path, tmp_path: Path, started: list[str]) -> None:
    with pytest.raises(SystemExit, match="seed1 is no dataset: experiments.recipes --seeds makes it"):
        paper.main([data], [1], "gpt2", tmp_path / "runs")
    assert not started
