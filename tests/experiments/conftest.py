"""Trials whose commands run in the process of the test."""

from pathlib import Path
from typing import Any

import pytest

import experiments.tuning.trials as trials
from cllm4rec.data.dataset import Dataset
from experiments.commands import Cost
from tests.support.experiments import run_here
from tests.support.worlds import taste_dataset

COST = Cost(seconds=6.0, cpu_seconds=3.0, peak_mib=512.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset folder of a split seed, as a recipe writes it."""
    folder = tmp_path / "books" / "seed0"
    taste_dataset().save(folder)
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Commands run in this process, and are listed."""
    return run_here(monkeypatch, COST, trials)


@pytest.fixture
def trained_on(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """The datasets that the commands train on."""
    run_command, datasets = trials.run_command, []

    def run(command: str, *arguments: object) -> Cost:
        if command == "pretrain":
            datasets.append(Dataset.load(str(arguments[1])))
        return run_command(command, *arguments)

    monkeypatch.setattr(trials, "run_command", run)
    return datasets
