"""Training and lists on a GPU against those on a CPU; skipped without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec.data.dataset import Dataset

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

COMMANDS = """
import json, sys
from cllm4rec import finetune, pretrain, recommend

commands = {"pretrain": pretrain, "finetune": finetune, "recommend": recommend}
for command, *line in json.loads(sys.argv[1]):
    commands[command].main(line)
"""
TRAINING = ("--epochs", "3", "--batch-size", "16")


def run_on(device: str, precision: str, *lines: list[str]) -> None:
    """Commands, one after the other, in a process of its own."""
    environment = {"ACCELERATE_USE_CPU": str(device == "cpu"), "ACCELERATE_MIXED_PRECISION": precision}
    subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(lines)],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, uneven_dataset: Dataset) -> Path:
    """Folder of the runs `cpu no`, `gpu no` and `gpu bf16`, and of lists of the first on both devices."""
    folder = tmp_path_factory.mktemp("devices")
    uneven_dataset.save(folder / "data")
    for device, precision in (("cpu", "no"), ("gpu", "no"), ("gpu", "bf16")):
        run = f"{folder}/{device} {precision}"
        pretrain = ["pretrain", "--dataset", f"{folder}/data", "--output", run, *TRAINING]
        lists = ["recommend", "--run", f"{folder}/cpu no", "--all", "--output", f"{folder}/{device}.parquet"]
        further = [lists] if precision == "no" else []
        run_on(device, precision, pretrain, ["finetune", "--run", run, *TRAINING], *further)
    return folder


def records(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("precision", "tolerance"), [("no", 1e-3), ("bf16", 3e-2)])
def test_losses_and_validation_are_those_of_a_cpu(precision: str, tolerance: float, runs: Path) -> None:
    expected, found = records(runs / "cpu no"), records(runs / f"gpu {precision}")
    assert len(expected) == len(found)
    for on_cpu, on_gpu in zip(expected, found, strict=True):
        for name in ("content", "collaborative", "recommend"):
            loss = on_cpu["losses"].get(name)
            assert on_gpu["losses"].get(name) == (loss and pytest.approx(loss, rel=tolerance))
        if on_cpu["validation"] is not None:
            assert on_gpu["validation"] == pytest.approx(on_cpu["validation"], abs=0.02)


def test_lists_are_those_of_a_cpu(runs: Path) -> None:
    expected, found = (pl.read_parquet(runs / f"{device}.parquet") for device in ("cpu", "gpu"))
    assert expected["user_id"].equals(found["user_id"])
    np.testing.assert_allclose(found["score"].to_numpy(), expected["score"].to_numpy(), rtol=1e-4, atol=1e-4)
    assert (expected["item_id"] == found["item_id"]).mean() > 0.99, "near ties only"
