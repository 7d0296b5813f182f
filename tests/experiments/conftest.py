"""Folders of recipes, and trials whose commands run in the process of the test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import experiments.tuning.trials as trials
from cllm4rec.data.dataset import Dataset
from experiments import prepared, ranking_runs, report
from experiments.commands import Cost
from experiments.recipes.__main__ import main as make
from experiments.recipes.recipe import Counts
from experiments.recipes.sets import RECIPES
from tests.support.experiments import run_here
from tests.support.originals import write_movielens_1m
from tests.support.worlds import taste_dataset

COST = Cost(seconds=6.0, cpu_seconds=3.0, peak_mib=512.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset folder of a split seed, as a recipe writes it."""
    folder = tmp_path / "books" / "seed0"
    taste_dataset().save(folder)
    return folder


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the recipe of MovieLens 1M, from small files, with the split of seed 0."""
    write_movielens_1m(tmp_path)
    small = replace(RECIPES["ml-1m"], published=Counts(40, 39, 7, 7), hashes=())
    monkeypatch.setitem(RECIPES, "ml-1m", small)
    make(["ml-1m", "--original", str(tmp_path), "--output", str(tmp_path / "small"), "--seeds", "0"])
    return tmp_path / "small"


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


@pytest.fixture
def commands_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the process of the test, those of slow tests in their own."""
    if request.node.get_closest_marker("slow") is None:
        run_here(monkeypatch, COST, prepared, ranking_runs, report, trials)
