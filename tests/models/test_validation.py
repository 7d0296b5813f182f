"""Validation by a process that has no user to validate."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cllm4rec.evaluation import measure
from cllm4rec.models import validation
from tests.support.scorers import fixed_scores
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
