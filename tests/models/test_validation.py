"""Validation: which users are read, and a process that has none."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from cllm4rec import Dataset, TrainConfig
from cllm4rec.evaluation import Measurement, measure
from cllm4rec.models import validation
from cllm4rec.models.base import Recommender
from cllm4rec.models.estimation import estimated_stage
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from tests.support.scorers import fixed_scores
from tests.support.tables import refused
from tests.support.worlds import taste_dataset


def test_a_process_without_users_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = taste_dataset()
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    model = fixed_scores(dataset, scores)
    measured = measure(model, dataset, "validation", metrics=["ndcg@100"])
    pairs = list(zip(measured.users.tolist(), measured.per_user["ndcg@100"].tolist(), strict=True))
    monkeypatch.setattr(validation, "gather_object", lambda shares: [pairs, *shares])
    accelerator: Any = SimpleNamespace(process_index=len(pairs), num_processes=len(pairs) + 1)
    model.asked.clear()
    value = validation.shared_validation(model, dataset, accelerator)
    assert value == pytest.approx(measured.metrics["ndcg@100"], rel=1e-12)
    assert not model.asked


def test_some_of_many_users_are_validated_evenly_spaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, accelerator = taste_dataset(), Accelerator(cpu=True)
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    model = fixed_scores(dataset, scores)
    everyone = validation.users_to_validate(dataset)
    caplog.set_level("INFO")
    validation.log_validated_users(model, dataset, "finetune", accelerator)
    assert not caplog.messages
    monkeypatch.setattr(model, "most_validated_users", 3)
    validation.log_validated_users(model, dataset, "finetune", accelerator)
    assert caplog.messages == [f"finetune is validated on 3 of {len(everyone)} users, evenly spaced"]
    taken = everyone[[0, (len(everyone) - 1) // 2, -1]]
    of_all = measure(model, dataset, "validation", metrics=["ndcg@100"])
    expected = of_all.per_user["ndcg@100"][np.searchsorted(of_all.users, taken)].mean()
    assert validation.shared_validation(model, dataset, accelerator) == pytest.approx(expected, rel=1e-12)
    assert expected != of_all.metrics["ndcg@100"]


def test_training_and_its_estimate_read_the_same_users(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert RSLLM.most_validated_users == 4096, "as docs/papers.md says"
    monkeypatch.setattr(SASRec, "most_validated_users", 5)
    read: list[set[int]] = []
    validate = validation._validate

    def recorded(model: Recommender, dataset: Dataset, users: np.ndarray) -> Measurement:
        read.append({*users.tolist()})
        return validate(model, dataset, users)

    monkeypatch.setattr(validation, "_validate", recorded)
    dataset, accelerator, model = taste_dataset(), Accelerator(cpu=True), SASRec()
    taken = {*validation.users_to_validate(dataset, 5).tolist()}
    caplog.set_level("INFO")
    model.fit_stage(dataset, "pretrain", TrainConfig(epochs=1))
    assert read == [taken]
    assert "pretrain is validated on 5 of 80 users, evenly spaced" in caplog.text
    read.clear()
    estimated_stage(model, dataset, "pretrain", TrainConfig(epochs=1), accelerator)
    assert set.union(*read) == taken


def test_a_stage_without_epochs_needs_no_user_to_validate() -> None:
    dataset = taste_dataset()
    dataset = replace(dataset, part=(dataset.interactions.users == 0).astype(np.uint8))
    SASRec().fit_stage(dataset, "pretrain", TrainConfig(epochs=0))
    line = refused(SASRec().fit_stage, dataset, "pretrain", TrainConfig(epochs=1))
    assert line == "no user with validation events has training events: choose another split"
