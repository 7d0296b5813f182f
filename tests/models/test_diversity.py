"""Diverse lists against maximal marginal relevance item by item, in plain Python."""

import numpy as np
import pytest
import torch

from cllm4rec import IALS, IALSConfig
from cllm4rec.models import diversity as module
from cllm4rec.models.diversity import diversified, pool_size
from tests.support.worlds import taste_dataset


def by_hand(
    items: list[int], scores: list[float], vectors: np.ndarray, k: int, diversity: float
) -> list[int]:
    """A list of items by the formula of the module."""
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    low, high = min(scores), max(scores)
    relevance = {item: (score - low) / (high - low) for item, score in zip(items, scores, strict=True)}
    chosen = [items[0]]
    while len(chosen) < min(k, len(items)):

        def value(item: int) -> float:
            return (1 - diversity) * relevance[item] - diversity * max(unit[item] @ unit[i] for i in chosen)

        chosen.append(max((item for item in items if item not in chosen), key=value))
    return chosen + [-1] * (k - len(chosen))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("numbers_at_once", [1, 1 << 24])
def test_lists_are_those_of_the_formula(
    share: float, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", numbers_at_once)
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(40, 6)).astype(np.float32)
    items = np.stack([generator.permutation(40)[:12] for _ in range(7)])
    scores = -np.sort(-generator.normal(size=(7, 12)).astype(np.float32))
    items[3, 4:], scores[3, 4:] = -1, -np.inf  # four items are left
    items[5, :], scores[5, :] = -1, -np.inf
    tensors = map(torch.from_numpy, (items, scores, vectors))
    lists, of_lists = diversified(*tensors, 6, share)
    for row in range(7):
        n = int((items[row] >= 0).sum())
        expected = (
            by_hand(items[row, :n].tolist(), scores[row, :n].tolist(), vectors, 6, share) if n else [-1] * 6
        )
        assert lists[row].tolist() == expected
        score_of = dict(zip(items[row].tolist(), scores[row].tolist(), strict=True))
        assert of_lists[row].tolist() == [score_of[item] if item >= 0 else -np.inf for item in expected]


def test_equal_scores_and_vectors_keep_the_order() -> None:
    items = torch.arange(5)[None]
    lists, _ = diversified(items, torch.ones(1, 5), torch.ones(5, 3), 5, 0.5)
    assert lists.tolist() == [[0, 1, 2, 3, 4]]


@pytest.fixture(scope="module")
def ials() -> IALS:
    return IALS(IALSConfig(factors=8, regularization=1.0, alpha=1.0)).fit(taste_dataset())


def test_rank_diversifies_the_best_items(ials: IALS) -> None:
    train, users = taste_dataset().train, np.arange(9)
    best = ials.rank(users, train, pool_size(10, train.n_items))
    expected, scores = diversified(
        torch.from_numpy(best.items), torch.from_numpy(best.scores), ials.item_vectors(), 10, 0.6
    )
    lists = ials.rank(users, train, 10, diversity=0.6)
    np.testing.assert_array_equal(lists.items, expected.numpy())
    np.testing.assert_array_equal(lists.scores, scores.numpy())
    assert (lists.items[:, 0] == best.items[:, 0]).all()
    assert (lists.items != best.items[:, :10]).any()
    shorter = ials.rank(users, train, 4, diversity=0.6)
    np.testing.assert_array_equal(shorter.items, lists.items[:, :4])


def test_more_diversity_makes_the_items_of_a_list_less_alike(ials: IALS) -> None:
    train = taste_dataset().train
    vectors = ials.item_vectors().numpy()
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = []
    for share in (0.0, 0.4, 0.9):
        lists = ials.rank(np.arange(train.n_users), train, 8, diversity=share).items
        likeness.append(np.mean([unit[items] @ unit[items].T for items in lists]))
    assert likeness[0] > likeness[1] > likeness[2]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "much", None])
def test_other_values_are_refused(share: object, ials: IALS) -> None:
    with pytest.raises(ValueError, match=r"^`diversity` is .*: expected a number from 0 to 1$"):
        ials.rank(np.arange(2), taste_dataset().train, diversity=share)  # type: ignore[arg-type]
