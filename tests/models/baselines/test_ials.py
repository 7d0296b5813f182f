"""iALS: its optional library, and users against a dense solve."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cllm4rec import IALS, IALSConfig
from tests.support.commands import refusal
from tests.support.worlds import taste_dataset


def test_without_its_library_it_is_refused_before_a_run_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taste_dataset().save(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    flags = ("--system", "ials", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    assert "cllm4rec[baselines]" in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()


def test_a_user_is_the_minimum_of_the_weighted_squares() -> None:
    """sum over all items of c (seen - x . y)^2 + penalty |x|^2, with c = alpha for seen items, else 1."""
    dataset = taste_dataset()
    model = IALS(IALSConfig(factors=8, regularization=3.0, alpha=7.0)).fit(dataset)
    items = model.model.item_factors.astype(np.float64)
    histories = dataset.train.interactions.matrix[:20].toarray()
    scores = model.score(np.arange(20), dataset.train)
    for history, found in zip(histories, scores, strict=True):
        weights = np.where(history > 0, 7.0, 1.0)
        normal = (items.T * weights) @ items + 3.0 * np.eye(8)
        user = np.linalg.solve(normal, items.T @ (weights * (history > 0)))
        np.testing.assert_allclose(found, items @ user, atol=1e-4)
