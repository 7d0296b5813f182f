"""Initialisation of the ID tables: the factors against the equations they solve."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import checkerboard
from cllm4rec.models.cllm4rec import initialisation
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.initialisation import als_factors
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from tests.support.backbones import save_backbone
from tests.support.worlds import taste_dataset


def random_matrix(seed: int = 0, shape: tuple[int, int] = (23, 17)) -> sp.csr_matrix:
    """Ones in random cells; the third row and the last column are empty."""
    dense = np.random.default_rng(seed).random(shape) < 0.2
    dense[2], dense[:, -1] = False, False
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_least_squares_solve_the_normal_equations_of_each_row(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x = (Y^T C Y + penalty)^-1 Y^T C p, with the confidences C of the row (Hu, Koren, Volinsky, 2008)."""
    monkeypatch.setattr(initialisation, "GRADIENT_STEPS", 40)
    monkeypatch.setattr(initialisation, "EVENTS_AT_ONCE", at_once)
    matrix, generator = random_matrix(), np.random.default_rng(1)
    fixed = generator.standard_normal((matrix.shape[1], 6)).astype(np.float32)
    start = generator.standard_normal((matrix.shape[0], 6)).astype(np.float32)
    solution = initialisation._least_squares(matrix, fixed, start)
    wide = fixed.astype(np.float64)
    for row, seen in enumerate(matrix.toarray()):
        weights = np.where(seen > 0, initialisation.CONFIDENCE, 1.0)
        left = (wide.T * weights) @ wide + initialisation.PENALTY * np.eye(6)
        np.testing.assert_allclose(solution[row], np.linalg.solve(left, (wide.T * weights) @ seen), atol=2e-5)


def test_a_few_gradient_steps_come_close_and_more_come_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, fixed = random_matrix(), np.random.default_rng(1).standard_normal((17, 6)).astype(np.float32)
    solutions = []
    for steps in (1, 3, 40):
        monkeypatch.setattr(initialisation, "GRADIENT_STEPS", steps)
        solutions.append(initialisation._least_squares(matrix, fixed, np.zeros((23, 6), dtype=np.float32)))
    distances = [
        np.linalg.norm(factors - solutions[-1]) / np.linalg.norm(solutions[-1]) for factors in solutions[:2]
    ]
    assert distances[1] < 0.1 < distances[0]


def test_summed_items_of_a_history_score_what_similar_users_took() -> None:
    """Even users take even items: inner products are largest with items of the same parity, for all users."""
    events = Dataset.from_frame(checkerboard(60, 40)).interactions
    factors = als_factors(events, 16, seed=0)
    assert factors.shape == (60 + 40, 16) and np.isfinite(factors).all()
    users, items = factors[:60], factors[60:]
    same = events.matrix.toarray() > 0
    for scores in (events.matrix @ items @ items.T, users @ items.T):
        assert scores[same].min() > scores[~same].max()


@pytest.mark.parametrize(("n_users", "n_items"), [(1, 1), (1, 5), (5, 1)])
def test_the_smallest_data_has_factors(n_users: int, n_items: int) -> None:
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}"} for user in range(n_users) for item in range(n_items)
    ]
    events = Dataset.from_frame(pl.DataFrame(rows)).interactions
    factors = als_factors(events, 8, seed=0)
    assert factors.shape == (n_users + n_items, 1) and np.isfinite(factors).all()


@pytest.mark.parametrize("start", ["factors", "title", "random"])
def test_an_item_without_training_events_starts_at_the_scale_of_the_others(
    start: str, tmp_path: Path
) -> None:
    """The gradient of a normalisation layer at a row of zeros is millions of times that of other rows."""
    dataset = taste_dataset(4, 80, 60, 20)
    held_out = 17
    part = np.where(dataset.interactions.items == held_out, 2, dataset.part).astype(np.uint8)
    train = replace(dataset, part=part).train
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(save_backbone(tmp_path, "llama", titled=True)), start=start))
    model.build(train)
    norms = model.net.collaborative.whole().norm(dim=1)
    assert norms[train.n_users + held_out] > 0.05 * norms.median()
