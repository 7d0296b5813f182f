"""Slices of users by activity and of held-out items by popularity, by hand and by brute force."""

import numpy as np
import pytest

from cllm4rec.evaluation import measure
from cllm4rec.evaluation.slices import BY_ACTIVITY, BY_POPULARITY, quartile_groups
from tests.support.scorers import fixed_scores
from tests.support.worlds import taste_dataset


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([4, 1, 3, 2], [[1], [2], [3], [4]]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [[1, 2], [3, 4], [5, 6], [7, 8]]),
        ([5, 5, 5, 9], [[5, 5, 5], [9]]),  # equal numbers stay together
        ([7, 7, 7], [[7, 7, 7]]),
        ([3], [[3]]),
        ([], []),
    ],
)
def test_quartile_groups_by_hand(numbers: list[int], expected: list[list[int]]) -> None:
    found = list(quartile_groups(np.array(numbers)))
    assert [sorted(np.array(numbers)[mask]) for _, _, mask in found] == expected
    assert [(lowest, highest) for lowest, highest, _ in found] == [(min(x), max(x)) for x in expected]


def test_slices_by_activity_average_the_users_of_a_group() -> None:
    dataset = taste_dataset()
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    result = measure(fixed_scores(dataset, scores), dataset)
    slices = [each for each in result.slices if each.by == BY_ACTIVITY]
    assert sum(each.n_users for each in slices) == len(result.users)
    n_input = np.array([len(dataset.train.interactions.history(user)) for user in result.users])
    for each in slices:
        inside = (n_input >= each.lowest) & (n_input <= each.highest)
        assert set(each.metrics) == set(result.per_user)
        assert each.n_users == inside.sum() > 0
        for name, value in each.metrics.items():
            assert value == pytest.approx(result.per_user[name][inside].mean())


def test_metrics_of_the_catalogue_have_no_slices() -> None:
    dataset = taste_dataset()
    scores = np.zeros((dataset.n_users, dataset.n_items))
    assert measure(fixed_scores(dataset, scores), dataset, metrics=["gini", "coverage"]).slices == ()


def test_slices_by_popularity_have_the_held_out_items_of_a_group_alone() -> None:
    """The value of a slice is that of the test events whose items are in it."""
    dataset = taste_dataset()
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    result = measure(fixed_scores(dataset, scores), dataset)
    slices = [each for each in result.slices if each.by == BY_POPULARITY]
    assert len(slices) > 1
    n_training = np.bincount(dataset.train.interactions.items, minlength=dataset.n_items)
    is_test, known = dataset.part == 2, dataset.only("train", "validation").interactions
    masked = scores.copy()
    masked[known.users, known.items] = -np.inf
    ranks = (masked[:, None, :] > masked[:, :, None]).sum(2)  # (n_users, n_items), no two scores are equal
    n_events = 0
    for each in slices:
        popularity = n_training[dataset.interactions.items]
        inside = is_test & (popularity >= each.lowest) & (popularity <= each.highest)
        users, items = dataset.interactions.users[inside], dataset.interactions.items[inside]
        best = [min(ranks[user, items[users == user]]) for user in np.unique(users)]
        assert each.n_users == len(best)
        assert each.metrics["mrr@10"] == pytest.approx(np.mean([1 / (r + 1) if r < 10 else 0 for r in best]))
        assert each.metrics["hit_rate@20"] == pytest.approx(np.mean([r < 20 for r in best]))
        assert "novelty@10" not in each.metrics
        n_events += len(users)
    assert n_events == is_test.sum()
