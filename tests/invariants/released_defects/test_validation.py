"""Defects 6, 8 and 9 of CLLM4Rec's released code do not occur: metrics and validation."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.models import neural, validation
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder
from tests.support.released_defects import small_dataset, trained_model
from tests.support.scorers import Scorer
from tests.support.systems import QUICK


# 6: one user without test items turned every metric into NaN
def test_user_without_test_items_does_not_make_metrics_nan() -> None:
    dataset = small_dataset()
    without = np.unique(dataset.test.interactions.users)[:7]
    moved = np.isin(dataset.interactions.users, without) & (dataset.part == 2)
    part = np.where(moved, 0, dataset.part).astype(np.uint8)
    fewer = replace(dataset, part=part)
    assert (np.diff(fewer.test.interactions.indptr)[without] == 0).all()
    measured = measure(trained_model(), fewer)
    assert all(np.isfinite(value) for value in measured.metrics.values())
    assert not set(without) & set(measured.users)
    others = np.setdiff1d(np.unique(dataset.test.interactions.users), without)
    same = measure(trained_model(), fewer, users=others)
    for name in measured.per_user:
        assert measured.metrics[name] == pytest.approx(same.metrics[name])


# 8: the best weights were chosen by the training loss
def test_best_weights_are_chosen_by_validation_not_training_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    qualities, records, after_epoch = iter([0.3, 0.4, 0.2, 0.1]), [], []
    monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(qualities))
    model, dataset = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0)), small_dataset()

    def on_epoch(record: EpochRecord) -> None:
        records.append(record)
        after_epoch.append(model.net.collaborative.whole())

    model.fit_stage(dataset, "pretrain", replace(QUICK, epochs=4), Hooks(on_epoch))
    training_losses = [record.losses["collaborative"] for record in records]
    assert int(np.argmin(training_losses)) == 3, "the training loss falls to the end"
    assert torch.equal(model.net.collaborative.whole(), after_epoch[1])


# 9: validation was repeated whole on every rank
def scores(users: np.ndarray, seen: Dataset) -> np.ndarray:
    """Scores by item and user number."""
    return np.sin(np.arange(seen.n_items)[None, :] * (1.0 + users[:, None]))


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_validation_is_shared_among_ranks(n_ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks are threads here: each scores a share of the users, and all get the value of a single process."""
    dataset = small_dataset()
    barrier, gathered = threading.Barrier(n_ranks), {}
    scorers = [Scorer(dataset, scores) for _ in range(n_ranks)]
    values: dict[int, float] = {}

    def gather(objects: list[object]) -> list[object]:
        gathered[threading.current_thread().name] = objects
        barrier.wait(timeout=60)
        return [value for name in sorted(gathered) for value in gathered[name]]

    def run(rank: int) -> None:
        accelerator: Any = SimpleNamespace(process_index=rank, num_processes=n_ranks)
        values[rank] = validation.shared_validation(scorers[rank], dataset, accelerator)

    monkeypatch.setattr(validation, "gather_object", gather)
    ranks = [threading.Thread(target=run, args=(rank,), name=str(rank)) for rank in range(n_ranks)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(timeout=120)
    users = np.unique(dataset.validation.interactions.users).tolist()
    asked = [[user for batch, _ in scorer.asked for user in batch.tolist()] for scorer in scorers]
    assert sorted(user for share in asked for user in share) == users, "each user once"
    sizes = [len(share) for share in asked]
    assert max(sizes) - min(sizes) <= 1
    alone = measure(Scorer(dataset, scores), dataset, "validation").metrics["ndcg@100"]
    assert list(values.values()) == pytest.approx([alone] * n_ranks, rel=1e-12)


RANK = """
import json, os, sys
from accelerate import Accelerator
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load
from cllm4rec.models.validation import shared_validation

model, dataset = load(sys.argv[1]), Dataset.load(sys.argv[2])
asked, vectors = [], model._vectors
model._vectors = lambda users, *others: (asked.extend(users.tolist()), vectors(users, *others))[1]
accelerator = Accelerator(cpu=True)
value = shared_validation(model, dataset, accelerator)
with open(f"{sys.argv[3]}/{accelerator.process_index}.json", "w") as file:
    json.dump({"asked": asked, "value": value, "n": accelerator.num_processes}, file)
accelerator.state.destroy_process_group()
"""


@pytest.mark.slow
def test_validation_is_shared_among_two_processes(tmp_path: Path) -> None:
    small_dataset().save(tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    run = RunFolder.create(tmp_path / "run", "cllm4rec", dataset, tmp_path / "data")
    run.begin_stage("finetune", StageSettings(system={}))
    trained_model().save(run.path / "finetune")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = "accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0".split()
    arguments = [str(path) for path in (script, tmp_path / "run", tmp_path / "data", tmp_path)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", *command, *arguments], check=True, env=environment, timeout=300)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["n"] for rank in ranks] == [2, 2]
    users = np.unique(dataset.validation.interactions.users).tolist()
    assert sorted(ranks[0]["asked"] + ranks[1]["asked"]) == users
    alone = measure(trained_model(), dataset, "validation").metrics["ndcg@100"]
    assert ranks[0]["value"] == ranks[1]["value"] == pytest.approx(alone, rel=1e-6)
