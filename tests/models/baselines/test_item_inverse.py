"""The inverse of an item matrix: its numbers, its precision, and that it is computed in place."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

from cllm4rec.models.baselines import item_inverse
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from tests.support.worlds import taste_dataset


def events(n_users: int, n_items: int) -> sp.csr_matrix:
    draws = np.random.default_rng(0).random((n_users, n_items))
    return sp.csr_matrix((draws < 0.1).astype(np.float32))


def test_it_is_the_inverse_in_the_given_space() -> None:
    matrix, space = events(40, 13), item_inverse.empty_item_matrix(13)
    inverse = item_inverse.item_inverse(matrix, 7.0, space)
    expected = np.linalg.inv((matrix.T @ matrix).toarray().astype(np.float64) + 7.0 * np.eye(13))
    np.testing.assert_allclose(inverse, expected, rtol=1e-12, atol=1e-15)
    assert np.shares_memory(inverse, space)


def test_blocks_cover_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_inverse, "NUMBERS_AT_ONCE", 4 * 13)
    rows = [np.arange(13)[block] for block in item_inverse.blocks_of_rows(13)]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(13))
    assert max(map(len, rows)) == 4


def test_ease_in_single_precision_differs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, settings = taste_dataset(), EASEConfig(regularization=20.0)
    double = EASE(settings).fit(dataset).weights
    monkeypatch.setattr(item_inverse, "MOST_IN_DOUBLE", dataset.n_items - 1)
    assert item_inverse.empty_item_matrix(dataset.n_items).dtype == np.float32
    single = EASE(settings).fit(dataset).weights
    assert double.dtype == single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())


def test_the_weights_of_ease_take_little_more_than_the_inverse_and_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """8 bytes of float64 and 4 of float32 for each pair of items; the product of sparse matrices is extra."""
    dataset = taste_dataset(n_users=80, n_items=1500)
    monkeypatch.setattr(item_inverse, "NUMBERS_AT_ONCE", 10 * dataset.n_items)
    tracemalloc.start()
    try:
        EASE(EASEConfig(regularization=20.0)).fit(dataset)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 14 * dataset.n_items**2
