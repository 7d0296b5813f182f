"""Pretrain and finetune: systems, presets, settings of both stages, --dry-run."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load, load_stage, neural
from cllm4rec.training.dry_run import DryRun, ObjectiveTiming
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call, refusal, stage_settings


def test_a_dataset_without_a_split_is_trained_without_validation(workspace: Path, tmp_path: Path) -> None:
    flags = ("--interactions", workspace / "events.csv", "--split", "none")
    call("prepare", *flags, "--output", tmp_path / "data")
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 1)
    call("finetune", "--run", tmp_path / "run", "--epochs", 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines].count("finetune") == 2
    assert all(line["validation"] is None for line in lines)
    call("recommend", "--run", tmp_path / "run", "--all", "--output", tmp_path / "lists.csv")
    with pytest.raises(ValueError, match="no test events"):
        call("evaluate", "--run", tmp_path / "run")


@pytest.mark.parametrize("system", ["ials", "ease", "itemknn", "popularity"])
def test_a_one_stage_system_has_the_same_commands(
    system: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("pretrain", "--system", system, "--dataset", workspace / "data", "--output", tmp_path / "run")
    capsys.readouterr()
    call("finetune", "--run", tmp_path / "run")
    assert f"{system} is fitted in one stage" in capsys.readouterr().out
    call("evaluate", "--run", tmp_path / "run", "--json", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["system"] == system
    call("recommend", "--run", tmp_path / "run", "--all", "--output", tmp_path / "lists.jsonl")
    assert len(pl.read_ndjson(tmp_path / "lists.jsonl")) > 0


def test_memory_is_refused_where_nothing_is_trained_by_steps(workspace: Path, tmp_path: Path) -> None:
    flags = ("--dataset", workspace / "data", "--output", tmp_path / "run", "--system", "popularity")
    assert refusal("pretrain", *flags, "--memory", 3).startswith("--memory has no effect on popularity")
    assert not (tmp_path / "run").exists()


def test_finetuning_again_starts_from_pretraining_and_gives_the_same(
    pretrained: Path, tmp_path: Path
) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    weights = []
    for _ in range(2):
        call("finetune", "--run", tmp_path / "run", "--epochs", 1)
        weights.append(load_file(tmp_path / "run" / "finetune" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_finetuning_that_does_not_help_ends_with_the_weights_at_its_start(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All epochs have their lines in metrics.jsonl, and no later command sees a difference."""
    caplog.set_level("INFO", "cllm4rec")
    shutil.copytree(pretrained, tmp_path / "run")
    given = iter([0.5, 0.1, 0.3, 0.2])
    monkeypatch.setattr(neural, "shared_validation", lambda *_: next(given))
    flags = ("--epochs", 3, "--finetune-from", "pretrained", "--linear", "none")
    call("finetune", "--run", tmp_path / "run", *flags)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    finetuned = [line for line in lines if line["stage"] == "finetune"]
    assert [(line["validation"], line["best"]) for line in finetuned] == [
        (0.1, False),
        (0.3, False),
        (0.2, False),
    ]
    before, after = (load_file(tmp_path / "run" / s / "model.safetensors") for s in ("pretrain", "finetune"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(array, after[name]) for name, array in before.items())
    assert "the first weights (0.5000) are kept: no epoch is better" in caplog.messages
    assert not any(message.startswith("best epoch") for message in caplog.messages)
    assert RunFolder.open(tmp_path / "run").ended("finetune")
    assert load(tmp_path / "run").stage == "finetune"


def test_finetuning_without_epochs_writes_the_weights_from_which_it_would_start(
    pretrained: Path, tmp_path: Path
) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    for flags in (("--epochs", 0), ("--epochs", 1), ("--epochs", 0)):
        call("finetune", "--run", tmp_path / "run", "--linear", "none", *flags)
        run = RunFolder.open(tmp_path / "run")
        assert run.ended("finetune")
        lines = [line for line in run.metrics() if line.stage == "finetune"]
        assert len(lines) == run.description.stages["finetune"].training["epochs"] == flags[1]


def test_finetune_refuses_to_change_settings_fixed_by_pretraining(pretrained: Path) -> None:
    for flags in (("--backbone", "small"), ("--start", "random")):
        with pytest.raises(ValueError, match="fixed by pretraining"):
            call("finetune", "--run", pretrained, *flags)


def test_the_preset_of_the_paper_fills_both_stages(workspace: Path, tmp_path: Path) -> None:
    flags = ("--dataset", workspace / "data", "--output", tmp_path / "run", "--preset", "paper")
    call("pretrain", *flags, "--epochs", 1, "--content-warmup", 0)
    call("finetune", "--run", tmp_path / "run", "--epochs", 1)
    for stage, learning_rate in (("pretrain", 1e-3), ("finetune", 1e-4)):
        settings = stage_settings(tmp_path / "run", stage)
        assert settings["training"]["learning_rate"] == learning_rate
        assert settings["training"]["batch_size"] == 20
        for name, value in {
            "start": "random",
            "mask_share": 0.2,
            "readout": "last",
            "attention": "causal",
        }.items():
            assert settings["system"][name] == value


def test_finetuning_takes_the_seed_of_pretraining(workspace: Path, tmp_path: Path) -> None:
    flags = ("--dataset", workspace / "data", "--epochs", 0, "--seed", 3)
    call("pretrain", *flags, "--output", tmp_path / "run")
    call("finetune", "--run", tmp_path / "run", "--epochs", 0)
    assert stage_settings(tmp_path / "run", "finetune")["training"]["seed"] == 3


DIVERGING = ("--learning-rate", 1e9, "--warmup-steps", 0)


def test_training_that_diverges_before_a_validation_leaves_no_weights(
    workspace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, flags = tmp_path / "run", ("--dataset", workspace / "data", "--output", tmp_path / "run")
    with pytest.raises(
        ValueError, match="lower --learning-rate .no epoch was validated, and nothing is kept"
    ):
        call("pretrain", *flags, "--epochs", 1, *DIVERGING)
    assert not (run / "pretrain").exists()
    for command in ("evaluate", "finetune"):
        assert "holds no weights" in refusal(command, "--run", run)
    with caplog.at_level("INFO", "cllm4rec"):
        call("pretrain", *flags, "--epochs", 1)
    assert f"{run} holds a run without weights: it starts anew" in caplog.text


def test_training_that_diverges_later_ends_with_its_best_epoch(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clip = TrainingRun._clip_gradient

    def broken(self: TrainingRun, objective: str) -> None:
        if self.progress.best is not None:
            for parameter in self.weights.values():
                parameter.grad = torch.full_like(parameter, torch.nan)
        clip(self, objective)

    monkeypatch.setattr(TrainingRun, "_clip_gradient", broken)
    run = tmp_path / "run"
    flags = ("--dataset", workspace / "data", "--output", run, "--epochs", 3, "--content-ratio", 0)
    with pytest.raises(ValueError, match="lower --learning-rate .the best weights so far are kept"):
        call("pretrain", *flags)
    monkeypatch.undo()
    assert RunFolder(run).ended("pretrain")
    caplog.clear()
    call("evaluate", "--run", run)
    assert "has not ended" not in caplog.text


def test_a_stage_says_which_epoch_it_keeps(
    workspace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "cllm4rec"):
        call("pretrain", "--dataset", workspace / "data", "--output", tmp_path / "run", "--epochs", 2)
        call("pretrain", "--system", "itemknn", "--dataset", workspace / "data", "--output", tmp_path / "knn")
    best = [line for line in RunFolder(tmp_path / "run").metrics() if line.best][-1]
    assert f"best epoch {best.epoch}: validation ndcg@100 {best.validation:.4f}" in caplog.text
    config = load(tmp_path / "knn").config
    chosen = f'"neighbours": {config.neighbours}, "shrinkage": {config.shrinkage}'
    assert f"itemknn takes {{{chosen}}}: validation ndcg@100 " in caplog.text


def test_a_run_that_is_not_there_is_not_resumed(tmp_path: Path) -> None:
    line = refusal("pretrain", "--resume", "--output", tmp_path / "none")
    assert line == f"there is no run in {tmp_path / 'none'} to resume: give --dataset to start one"


def test_a_setting_may_be_left_to_the_validation_events(workspace: Path, tmp_path: Path) -> None:
    flags = ("--system", "itemknn", "--neighbours", "5", "--shrinkage", "1", "--dataset", workspace / "data")
    call("pretrain", *flags, "--decay", "auto", "--output", tmp_path / "chosen")
    call("pretrain", *flags, "--output", tmp_path / "plain")
    assert load(tmp_path / "plain").config.decay == 1.0
    assert load(tmp_path / "chosen").config.decay in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    call("pretrain", *flags[:4], "--shrinkage", "auto", *flags[6:], "--output", tmp_path / "shrinkage")
    assert load(tmp_path / "shrinkage").config.shrinkage is not None
    with pytest.raises(ValueError, match="invalid float value: 'much'"):
        call("pretrain", *flags, "--decay", "much", "--output", tmp_path / "wrong")


def test_a_dry_run_prints_the_cost_of_training_and_writes_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(workspace.rglob("*")) if path.is_file()}

    before = files()
    flags = ("--dataset", workspace / "data", "--output", workspace / "new", "--dry-run", "--epochs", 7)
    call("pretrain", *flags, "--batch-size", 5)
    printed = capsys.readouterr().out
    n_parameters = sum(
        p.numel() for p in load_stage(RunFolder(workspace / "run"), "pretrain").net.parameters()
    )
    assert f"parameters     {n_parameters:,} trained" in printed
    n_examples = int((np.diff(Dataset.load(workspace / "data").train.interactions.indptr) > 0).sum())
    assert f"collaborative  {-(-n_examples // 5)} steps an epoch" in printed
    assert "(7 epochs and 1 of warm-up; patience may end them earlier)" in printed
    assert re.search(r"micro-batch    at most [0-9,]+ \(content\), [0-9,]+ \(collaborative\) tokens", printed)
    with pytest.raises(ValueError, match=r"`--memory` 0\.001 is too little|--memory 0\.001 is too little"):
        call("pretrain", *flags, "--memory", 0.001)
    call("finetune", "--run", workspace / "run", "--dry-run")
    printed = capsys.readouterr().out
    assert "recommend" in printed
    assert ", after one epoch in 1, and 2 before the first epoch\n" in printed
    call("finetune", "--run", workspace / "run", "--dry-run", "--finetune-from", "pretrained")
    assert ", after one epoch in 1, and 1 before the first epoch\n" in capsys.readouterr().out
    assert files() == before
    flags = ("--system", "popularity", "--dataset", workspace / "data", "--output", workspace / "new")
    call("pretrain", *flags, "--dry-run")
    assert "there are no steps to time" in capsys.readouterr().out
    assert not (workspace / "new").exists()


def test_the_estimates_of_a_dry_run_by_hand() -> None:
    """Two of content alone, then three of both; a validation after each of the three."""
    content = ObjectiveTiming("content", 10, 0, 0.5, 100)
    other = ObjectiveTiming("other", 20, 2, 0.25, 100)
    found = DryRun({"table": 2**18, "rest": 2**18}, 2**20, 2**17, [content, other], 7.0, 3, 1, 100.0)
    assert found.max_seconds == 5 * 10 * 0.5 + 3 * 20 * 0.25 + 3 * 7
    assert replace(found, epochs=8, validate_every=3).validation_seconds == 4 * 7, (
        "epochs 0, 3 and 6, and the last, 7"
    )
    assert replace(found, first_validations=2).max_seconds == found.max_seconds + 2 * 7
    assert replace(found, epochs=0).max_seconds == 0
    assert found.memory == 4 + 5 * 2 - 0.5, (
        "MiB: 4 frozen; of 2 trained weights, gradients (but of rows), two moments, the best"
    )
    assert replace(found, frozen_width=2).memory == 2 + 5 * 2 - 0.5, "frozen weights in bf16"
    assert "computed twice" not in str(found)
    assert "layers are computed twice (gradient checkpointing)" in str(replace(found, checkpointed=True))
