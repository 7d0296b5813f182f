"""Metrics against numbers worked by hand. Ranks count from 0: rank r has the gain 1 / log2(r + 2)."""

import numpy as np
import pytest

from cllm4rec.metrics import (
    FAMILIES,
    NOT_LISTED,
    OF_RANKS,
    TrainingEvents,
    coverage,
    gini,
    hit_rate,
    mrr,
    ndcg,
    novelty,
    popularity_share,
    recall,
    requested_metrics,
)

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


def test_mrr_is_the_reciprocal_rank_of_the_best_item_in_the_top_k() -> None:
    # Best ranks 0, 1 (of 3 and 1), and 999, which counts in the top 1000 only.
    ranks, starts = np.array([0, 3, 1, 999]), np.array([0, 1, 3])
    assert mrr(ranks, starts, 1000).tolist() == [1.0, 0.5, 0.001]
    assert mrr(ranks, starts, 999).tolist() == [1.0, 0.5, 0.0]
    assert mrr(ranks, starts, 1).tolist() == [1.0, 0.0, 0.0]


def test_items_outside_the_list_are_worth_nothing() -> None:
    for name, metric in OF_RANKS.items():
        assert metric(np.array([NOT_LISTED, NOT_LISTED]), ONE_USER, 10**9).tolist() == [0.0], name


def test_metrics_of_many_users_are_those_of_each_alone() -> None:
    generator = np.random.default_rng(0)
    ranks, starts = generator.integers(0, 60, 200), np.unique(np.append(generator.integers(0, 200, 50), 0))
    for name, metric in OF_RANKS.items():
        alone = [metric(user_ranks, ONE_USER, 20)[0] for user_ranks in np.split(ranks, starts[1:])]
        np.testing.assert_allclose(metric(ranks, starts, 20), alone, rtol=1e-14, err_msg=name)


def training_events() -> TrainingEvents:
    """Items 0 .. 6. Users 0 to 3 took item 0, users 0 and 1 item 1, user 2 item 2 twice; 3 to 6 nobody."""
    users, items = np.array([0, 0, 1, 1, 2, 2, 2, 3]), np.array([0, 1, 0, 1, 0, 2, 2, 0])
    return TrainingEvents(users, items, tie_order=np.array([6, 5, 4, 3, 2, 1, 0]))


def test_novelty_is_the_mean_self_information_of_a_list() -> None:
    # Of 4 users 4, 2 and 1 took items 0, 1 and 2: 0, 1 and 2 bits. Items of nobody count as of one user.
    lists = np.array([[0, 1], [1, 2], [2, -1], [3, 1], [-1, -1]])
    assert novelty(lists, training_events()).tolist() == [0.5, 1.5, 2.0, 1.5, 0.0]


def test_popularity_share_counts_the_fifth_of_items_with_the_most_training_events() -> None:
    # A fifth of 7 items are 2: item 0 with 4 events, and item 2, which has 2 as item 1 and is ahead of it in
    # the tie order.
    lists = np.array([[0, 2, 1, 3], [1, 3, 4, 5], [2, -1, -1, -1], [-1, -1, -1, -1]])
    assert popularity_share(lists, training_events()).tolist() == [0.5, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("occurrences", "expected"),
    [
        ([3, 3, 3, 3], 0.0),
        ([0, 9, 0, 0], 1.0),
        # sorted 1 2 3, weights -2 0 2: (-2 + 6) / (2 * 6)
        ([3, 1, 2], 1 / 3),
        ([0, 0, 0], 0.0),
        ([5], 0.0),
    ],
)
def test_gini_index_of_the_numbers_of_lists(occurrences: list[int], expected: float) -> None:
    assert gini(np.array(occurrences)) == pytest.approx(expected, abs=1e-15)


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    assert coverage(np.array([0, 4, 1, 0, 2])) == 0.6


def test_families_are_measured_at_each_k_and_full_names_at_theirs() -> None:
    assert list(map(str, requested_metrics(["recall", "ndcg@7", "recall@5"], [5, 9]))) == [
        "recall@5", "recall@9", "ndcg@7",
    ]  # fmt: skip
    assert len(requested_metrics()) == 4 * len(FAMILIES)
    assert requested_metrics(("ndcg",), np.array([5, 9])) == requested_metrics(["ndcg"], range(5, 10, 4))


@pytest.mark.parametrize(
    ("metrics", "ks", "message"),
    [
        (["recal"], [5], "'recal', which is unknown: take recall, ndcg"),
        (["recall@"], [5], "'recall@', which is unknown"),
        (["recall@x"], [5], "'recall@x', which is unknown"),
        (["recall@-1"], [5], "'recall@-1', which is unknown"),
        (["recall"], [0], "recall@0 cannot be measured"),
        (["recall@0"], [5], "recall@0 cannot be measured"),
        (["recall"], [10**10], "cannot be measured"),
        (["recall"], [], "name no metric"),
        ([], [5], "name no metric"),
        ("ndcg@10", [5], r"`metrics` is 'ndcg@10': give a list"),
        (None, [5], "`metrics` is None: give a list"),
        ([10], [5], "`metrics` holds 10, which is unknown"),
        (["recall"], 10, "`ks` is 10: give a list of whole numbers"),
        (["recall"], "10", "`ks` is '10': give a list of whole numbers"),
        (["recall"], ["10"], r"`ks` is \['10'\]: give a list of whole numbers"),
        (["recall"], [10.0], r"`ks` is \[10.0\]: give a list of whole numbers"),
        (["recall"], np.ones((2, 2)), "`ks` is .*: give a list of whole numbers"),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused(metrics: list[str], ks: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        requested_metrics(metrics, ks)
