"""The paper's settings on a pretrained backbone: commands, the table, and going on."""

import json
from pathlib import Path

import pytest

from cllm4rec.training.run_folder import RunFolder
from experiments import paper, report
from experiments.commands import CommandFailed, Cost
from tests.support.backbones import save_backbone, small_dataset
from tests.support.experiments import Calls, names, run_here
from tests.support.worlds import taste_dataset


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Commands run in this process, and are listed."""
    return run_here(monkeypatch, Cost(1.0, 1.0, 1.0), paper, report)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    small_dataset().save(tmp_path / "books" / "seed0")
    return tmp_path / "books"


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    save_backbone(tmp_path / "backbone", titled=True)
    return tmp_path / "backbone"


def test_both_stages_run_with_the_settings_of_the_paper(
    data: Path, backbone: Path, tmp_path: Path, started: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    paper.main([data], [0], str(backbone), output, minutes=0.001)
    run = output / "books" / "seed0" / "backbone"
    assert names(started) == ["pretrain", "finetune", "evaluate"]
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
    paper.main([data], [0], str(backbone), output, minutes=0.001)
    assert len(started) == 3, "an ended run is not run again"
    refusal = r"backbone was begun with backbone .*backbone and --minutes 0.001: give these, or name another"
    with pytest.raises(SystemExit, match=refusal):
        paper.main([data], [0], str(backbone), output)
    other = save_backbone(tmp_path / "other" / "backbone", titled=True)
    with pytest.raises(SystemExit, match=refusal):
        paper.main([data], [0], str(other), output, minutes=0.001)
    taste_dataset(5, 40, 30, 10).save(data / "seed0")
    with pytest.raises(ValueError, match="is not the dataset of the run"):
        paper.main([data], [0], str(backbone), output, minutes=0.001)


def test_an_interrupted_run_goes_on_with_the_same_limit_only(
    data: Path, backbone: Path, tmp_path: Path, started: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_command = paper.run_command

    def interrupted(command: str, *arguments: object) -> Cost:
        if command == "finetune":
            raise KeyboardInterrupt
        return run_command(command, *arguments)

    monkeypatch.setattr(paper, "run_command", interrupted)
    output = tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt):
        paper.main([data], [0], str(backbone), output, minutes=0.001)
    monkeypatch.setattr(paper, "run_command", run_command)
    with pytest.raises(SystemExit, match="and --minutes 0.001: give these"):
        paper.main([data], [0], str(backbone), output)
    paper.main([data], [0], str(backbone), output, minutes=0.001)
    assert names(started) == ["pretrain", "pretrain", "finetune", "evaluate"]


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    data: Path,
    backbone: Path,
    tmp_path: Path,
    started: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_dataset().save(tmp_path / "books" / "seed1")
    run_command = paper.run_command

    def failing(command: str, *arguments: object) -> Cost:
        if command == "pretrain" and str(data / "seed0") in map(str, arguments):
            raise CommandFailed(1, Cost(1.0, 1.0, 1.0))
        return run_command(command, *arguments)

    monkeypatch.setattr(paper, "run_command", failing)
    with pytest.raises(SystemExit, match="^error: 1 of 2 runs failed, as reported above$"):
        paper.main([data], [0, 1], str(backbone), tmp_path / "runs", minutes=0.001)
    assert names(started) == ["pretrain", "finetune", "evaluate"]
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.count("not run") == 3
    assert "not run" not in second


def test_a_dry_run_trains_nothing(
    data: Path, backbone: Path, tmp_path: Path, started: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    paper.main([data], [0], str(backbone), tmp_path / "runs", dry_run=True)
    assert names(started) == ["pretrain"]
    assert not (tmp_path / "runs").exists()
    printed = capsys.readouterr().out
    assert "100 epochs and 10 of warm-up" in printed
    assert printed.splitlines()[-1].count("not run") == 3


def test_a_folder_without_a_dataset_is_refused(data: Path, tmp_path: Path, started: Calls) -> None:
    with pytest.raises(SystemExit, match="seed1 is no dataset: experiments.recipes --seeds makes it"):
        paper.main([data], [0, 1], "gpt2", tmp_path / "runs")
    assert not started
