"""AlphaRec's form learns the same in micro-batches, in several processes and after interruptions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cllm4rec.models.pooling.alpharec import AlphaRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import ResumeFile, Stopped
from tests.support.commands import run_launched
from tests.support.interruption import StopAfter
from tests.support.systems import new_system
from tests.support.worlds import taste_dataset

CONFIG = TrainConfig(epochs=3, batch_size=16, warmup_steps=5)


def network() -> AlphaRec:
    """A small system that is not fitted."""
    model = new_system("alpharec")
    assert isinstance(model, AlphaRec)
    return model


def test_an_interrupted_run_ends_bit_for_bit_where_it_would_have_ended(tmp_path: Path) -> None:
    expected = network().fit_stage(taste_dataset(), "pretrain", CONFIG)._arrays()
    resume_file, stops = ResumeFile(tmp_path / "state.safetensors"), 0
    while True:
        model = network()
        try:
            hooks = Hooks(should_stop=StopAfter(5))
            model.fit_stage(taste_dataset(), "pretrain", CONFIG, hooks, resume_file=resume_file)
            break
        except Stopped:
            stops += 1
    assert stops > 2
    assert all(np.array_equal(array, expected[name]) for name, array in model._arrays().items())


def test_steps_in_micro_batches_give_the_same_losses() -> None:
    """The sample is that of the step, so that the parts of a batch share it."""
    losses = []
    for config in (CONFIG, replace(CONFIG, accumulation=3)):
        records: list[EpochRecord] = []
        network().fit_stage(taste_dataset(), "pretrain", config, Hooks(records.append))
        losses.append([record.losses["recommend"] for record in records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    taste_dataset().save(tmp_path / "data")
    settings = ["--system", "alpharec", "--width", 16, "--hidden-width", 32, "--negatives", 40]
    training = ["--epochs", 6, "--batch-size", 16, "--warmup-steps", 2]
    losses = []
    for n in (1, 2):
        run = tmp_path / f"run of {n}"
        folders = ["--dataset", tmp_path / "data", "--output", run]
        run_launched(n, "-m", "cllm4rec.pretrain", *settings, *training, *folders)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["losses"]["recommend"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.97 * losses[0][0]
