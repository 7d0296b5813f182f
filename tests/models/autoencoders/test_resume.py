"""Autoencoders resumed from a resume file end bit for bit as in uninterrupted training."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import ResumeFile, Stopped
from tests.faults.digests import without_clock
from tests.support.autoencoders import CONFIG, autoencoder
from tests.support.commands import run_launched
from tests.support.interruption import StopAfter
from tests.support.worlds import taste_dataset

NEVER = 10**9
NAMES = ("multvae", "recvae")


def clockless(records: list[EpochRecord]) -> list[dict[str, Any]]:
    return [without_clock(vars(record)) for record in records]


@cache
def uninterrupted(name: str) -> tuple[dict[str, np.ndarray], list[EpochRecord], int]:
    """Arrays, records, and how often training asked whether to stop."""
    records: list[EpochRecord] = []
    counter = StopAfter(NEVER)
    model = autoencoder(name).fit_stage(
        taste_dataset(), "pretrain", CONFIG, Hooks(records.append, should_stop=counter)
    )
    return model._arrays(), records, NEVER - counter.left


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("every", [5, 9])
def test_many_stops_change_nothing(name: str, every: int, tmp_path: Path) -> None:
    expected, records, _ = uninterrupted(name)
    resume_file, seen, stops = ResumeFile(tmp_path / "state.safetensors"), [], 0
    while True:
        model = autoencoder(name)
        try:
            hooks = Hooks(seen.append, should_stop=StopAfter(every))
            model.fit_stage(taste_dataset(), "pretrain", CONFIG, hooks, resume_file=resume_file)
            break
        except Stopped:
            stops += 1
    assert stops > 2
    assert clockless(seen) == clockless(records)
    arrays = model._arrays()
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(array, expected[key]) for key, array in arrays.items())


@pytest.mark.parametrize("name", NAMES)
def test_steps_in_micro_batches_give_the_same_loss(name: str) -> None:
    """The gradient of a step does not depend on how it is computed; only dropout and draws do."""
    exact = {"dropout": 0.0, "beta": 0.0} if name == "multvae" else {"dropout": 0.0, "gamma": 0.0}
    once = replace(CONFIG, epochs=1)
    losses = []
    for config in (once, replace(once, accumulation=3)):
        records: list[EpochRecord] = []
        autoencoder(name, **exact).fit_stage(taste_dataset(), "pretrain", config, Hooks(records.append))
        losses.append(records[0].losses)
    for key, value in losses[0].items():
        assert value == pytest.approx(losses[1][key], rel=2e-2), key


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_learn_what_one_learns(name: str, tmp_path: Path) -> None:
    """Their draws differ, so that the losses of the epochs are close and not equal."""
    taste_dataset().save(tmp_path / "data")
    network = ["--system", name, "--width", 32, "--latent-width", 16, "--dropout", 0]
    training = ["--epochs", 6, "--batch-size", 16, "--warmup-steps", 2, "--learning-rate", 5e-3]
    losses = []
    for n in (1, 2):
        run = tmp_path / f"run of {n}"
        folders = ["--dataset", tmp_path / "data", "--output", run]
        run_launched(n, "-m", "cllm4rec.pretrain", *network, *training, *folders)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["losses"] for line in lines])
    names = {key for key in losses[0][0] if "KL" not in key}
    for one, two in zip(*losses, strict=True):
        assert all(two[key] == pytest.approx(one[key], rel=0.03) for key in names)
    assert all(losses[0][-1][key] < 0.97 * losses[0][0][key] for key in names)
