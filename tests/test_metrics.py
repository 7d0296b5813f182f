"""Metrics against numbers worked by hand. Ranks count from 0: rank r has the gain 1 / log2(r + 2)."""

import numpy as np
import pytest

from cllm4rec.metrics import PER_USER, hit_rate, mrr, ndcg, recall

ONE_USER = np.array([0])  # all ranks are of one user


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        ([0, 3, 7], 5, 2 / 3),  # 0 and 3 are below 5: 2 hits of min(5, 3) = 3
        ([0, 3, 7], 2, 1 / 2),  # 1 hit of min(2, 3) = 2, not of 3
        ([0, 1, 2], 2, 1.0),  # 2 hits of min(2, 3) = 2: a full list counts as full
        ([4], 4, 0.0),  # rank 4 is not in the top 4
        ([4], 5, 1.0),  # rank 4 is in the top 5
        ([9, 0], 100, 1.0),  # 2 hits of min(100, 2) = 2
    ],
)
def test_recall_is_hits_over_the_smaller_of_k_and_n(ranks: list[int], k: int, expected: float) -> None:
    assert recall(np.array(ranks), ONE_USER, k) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        ([0], 10, 1.0),  # 1/log2(2) = 1, over 1
        ([1], 10, 0.6309297535714575),  # 1/log2(3) = 0.63093, over 1
        ([2], 10, 0.5),  # 1/log2(4) = 1/2, over 1
        # gains 1/log2(2) + 1/log2(4) = 1.5; the best ranking of two has 1/log2(2) + 1/log2(3) = 1.6309297536
        ([0, 2], 10, 0.9197207891481876),
        # 8 and 9 are cut off, 1/log2(4) = 0.5 remains;
        # the best ranking has 1 + 0.6309297536 + 0.5 = 2.1309297536
        ([2, 8, 9], 3, 0.23463936301137822),
        ([0, 1, 2, 3], 2, 1.0),  # at k = 2 no ranking does better than two hits
        ([10], 10, 0.0),  # rank 10 is not in the top 10
    ],
)
def test_ndcg_is_the_gain_over_that_of_the_best_ranking(ranks: list[int], k: int, expected: float) -> None:
    assert ndcg(np.array(ranks), ONE_USER, k) == pytest.approx(expected, abs=1e-12)


def test_hit_rate_asks_for_any_item_in_the_top_k() -> None:
    # Rank 9 is in the top 10, rank 10 is not.
    assert hit_rate(np.array([30, 9, 30, 10, 0, 1, 2]), np.array([0, 2, 4]), 10).tolist() == [1.0, 0.0, 1.0]


def test_mrr_is_the_reciprocal_rank_of_the_best_item() -> None:
    # Best ranks 0, 1 (of 3 and 1), and 999, which counts too.
    assert mrr(np.array([0, 3, 1, 999]), np.array([0, 1, 3])).tolist() == [1.0, 0.5, 0.001]


def test_metrics_of_many_users_are_those_of_each_alone() -> None:
    generator = np.random.default_rng(0)
    ranks, starts = generator.integers(0, 60, 200), np.unique(np.append(generator.integers(0, 200, 50), 0))
    for name, metric in PER_USER.items():
        alone = [metric(user_ranks, ONE_USER)[0] for user_ranks in np.split(ranks, starts[1:])]
        np.testing.assert_allclose(metric(ranks, starts), alone, rtol=1e-14, err_msg=name)
