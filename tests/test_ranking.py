"""Top k against plain sorting, with ties and masked items."""

import numpy as np
import pytest
import torch

from cllm4rec import ranking
from cllm4rec.ranking import TopK
from tests.support.rankings import final_ranking


@pytest.fixture(params=[0, 1 << 40], ids=["searched", "merged whole"], autouse=True)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scores are merged whole; every test has few and many."""
    monkeypatch.setattr(ranking, "MERGED_WHOLE", request.param)


def top_k(scores: np.ndarray, k: int, tie_order: np.ndarray) -> np.ndarray:
    """The k best columns of each row, offered in one block."""
    best = TopK(len(scores), min(k, scores.shape[1]), torch.from_numpy(tie_order))
    best.offer(torch.from_numpy(scores))
    return best.items.numpy()


def test_ties_rank_by_the_tie_order() -> None:
    tie_order = np.array([4, 0, 3, 1, 2])
    assert top_k(np.array([[1.0, 1.0, 1.0, 1.0, 1.0]]), 3, tie_order).tolist() == [[1, 3, 4]]
    assert top_k(np.array([[2.0, 1.0, 1.0, 0.0, 1.0]]), 3, tie_order).tolist() == [[0, 1, 4]]


def test_masked_items_are_never_listed_and_short_lists_end_with_minus_one() -> None:
    inf = np.inf
    scores = np.array([[-inf, 2.0, -inf, 3.0], [-inf, -inf, -inf, -inf], [-5.0, -inf, -inf, -inf]])
    assert top_k(scores, 3, np.arange(4)).tolist() == [[3, 1, -1], [-1, -1, -1], [0, -1, -1]]


def test_k_beyond_the_catalogue_gives_the_whole_catalogue() -> None:
    scores = np.array([[0.1, 0.3, 0.2]])
    assert top_k(scores, 10, np.arange(3)).tolist() == [[1, 2, 0]]
    assert top_k(np.array([[0.1, -np.inf, 0.2]]), 10, np.arange(3)).tolist() == [[2, 0, -1]]


def test_an_item_above_all_others_is_taken_first_even_at_plus_infinity() -> None:
    scores = np.array([[1.0, np.inf, 2.0]])
    assert top_k(scores, 2, np.arange(3)).tolist() == [[1, 2]]


@pytest.mark.parametrize("k", [1, 5, 30, 64])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_top_k_agrees_with_plain_sorting_on_tied_scores(k: int, levels: int | None) -> None:
    generator = np.random.default_rng(k + levels)
    n_items = 50
    scores = generator.integers(0, levels, (12, n_items)).astype(np.float64)
    scores[generator.random(scores.shape) < 0.3] = -np.inf
    tie_order = generator.permutation(n_items)
    best = top_k(scores, k, tie_order)
    assert best.shape == (12, min(k, n_items))
    for row in range(len(scores)):
        masked = np.flatnonzero(np.isinf(scores[row])).tolist()
        ranked = final_ranking(scores[row], masked, tie_order)
        assert best[row].tolist() == (ranked + [-1] * n_items)[: min(k, n_items)]


@pytest.mark.parametrize("width", [1000, 333, 70, 7])
@pytest.mark.parametrize("levels", [1, 5, 10**6])
@pytest.mark.parametrize("k", [1, 6, 2000])
def test_the_best_of_blocks_are_the_best_of_all(k: int, levels: int | None, width: int) -> None:
    """Ties span blocks; rows without any score stay empty."""
    generator = np.random.default_rng(width + levels)
    scores = generator.integers(0, levels, (7, 1000)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.5] = -np.inf
    scores[3] = -np.inf
    tie_order = generator.permutation(1000)
    best = TopK(7, k, torch.from_numpy(tie_order))
    for first in range(0, 1000, width):
        best.offer(torch.from_numpy(scores[:, first : first + width]), first)
    for row in range(7):
        masked = np.flatnonzero(np.isinf(scores[row])).tolist()
        ranked = final_ranking(scores[row], masked, tie_order)
        expected = (ranked + [-1] * k)[:k]
        assert best.items[row].tolist() == expected
        assert best.scores[row].tolist() == [scores[row, item] if item >= 0 else -np.inf for item in expected]


def test_users_with_many_equal_scores_and_others_share_a_block() -> None:
    """A third of the users have 50 positive scores among zeros, fewer than are listed; zero has two signs."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(30, 5000)).astype(np.float32)
    scores[::3] = np.where(generator.random((10, 5000)) < 0.01, abs(scores[::3]), 0.0)
    scores[::3, ::2] *= -1.0
    scores[generator.random(scores.shape) < 0.1] = -np.inf
    tie_order = generator.permutation(5000)
    expected = np.stack([np.lexsort((tie_order, -row))[:100] for row in scores])
    assert np.signbit(scores[scores == 0]).any() and not np.signbit(scores[scores == 0]).all()
    for width in (5000, 2048):
        best = TopK(30, 100, torch.from_numpy(tie_order))
        for first in range(0, 5000, width):
            best.offer(torch.from_numpy(scores[:, first : first + width]), first)
        np.testing.assert_array_equal(best.items.numpy(), expected)
