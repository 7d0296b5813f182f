"""Metrics against numbers worked by hand, `measure` against plain sorting and against the library ranx."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import PER_USER, bootstrap_interval, hit_rate, mask_known, measure, mrr, ndcg, rank_of, recall
from cllm4rec.ranking import TopK, top_k


class Fixed:
    """A system whose scores are given, (n_users, n_items)."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        return self.scores[users]


def random_dataset(seed: int, n_users: int = 40, n_items: int = 90) -> Dataset:
    """Users with 3 to 2/3 n_items events; every fourth user has none held out."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        n = int(generator.integers(3, max(4, 2 * n_items // 3)))
        for item in generator.choice(n_items, n, replace=False):
            part = "train" if user % 4 == 0 else generator.choice(["train", "validation", "test"], p=[0.5, 0.2, 0.3])
            rows.append({"user_id": f"u{user}", "item_id": f"i{item}", "part": str(part)})
    everything = [{"user_id": "collector", "item_id": f"i{item}", "part": "train"} for item in range(n_items)]
    return Dataset.from_frame(pl.DataFrame(rows + everything))


def items_by_user(dataset: Dataset) -> dict[int, list[int]]:
    """The items of each user that has any, in plain Python."""
    taken: dict[int, list[int]] = {}
    for user, item in zip(dataset.interactions.users.tolist(), dataset.interactions.items.tolist(), strict=True):
        taken.setdefault(user, []).append(item)
    return taken


def final_ranking(scores: np.ndarray, masked: list[int], tie_order: np.ndarray) -> list[int]:
    """All items that are not masked, best first, by Python's sort."""
    return sorted((item for item in range(len(scores)) if item not in masked), key=lambda i: (-scores[i], tie_order[i]))


def plain_metrics(ranking: list[int], wanted: list[int]) -> dict[str, float]:
    """The metrics by their definitions, from a list of items and a list of held-out items."""

    def gain_at(k: int) -> float:
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
        return sum(1 / math.log2(place + 1) for place, item in enumerate(ranking[:k], 1) if item in wanted) / ideal

    def share_at(k: int) -> float:
        return len(set(ranking[:k]) & set(wanted)) / min(k, len(wanted))

    return {
        "recall@20": share_at(20),
        "recall@40": share_at(40),
        "ndcg@100": gain_at(100),
        "hit_rate@10": 1.0 if set(ranking[:10]) & set(wanted) else 0.0,
        "ndcg@10": gain_at(10),
        "mrr": max(1 / place for place, item in enumerate(ranking, 1) if item in wanted),
    }


# Numbers worked by hand. Ranks count from 0, so that rank r is place r + 1 and its gain is 1 / log2(r + 2).

ONE_USER = np.array([0])  # all ranks are of one user


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        ([0, 3, 7], 5, 2 / 3),  # 0 and 3 are below 5: 2 hits of min(5, 3) = 3
        ([0, 3, 7], 2, 1 / 2),  # 1 hit of min(2, 3) = 2, not of 3
        ([0, 1, 2], 2, 1.0),  # 2 hits of min(2, 3) = 2: a full list counts as full
        ([4], 4, 0.0),  # place 5 is not in the top 4
        ([4], 5, 1.0),  # place 5 is in the top 5
        ([9, 0], 100, 1.0),  # 2 hits of min(100, 2) = 2
    ],
)
def test_recall_is_hits_over_the_smaller_of_k_and_n(ranks, k, expected):
    assert recall(np.array(ranks), ONE_USER, k) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("ranks", "k", "expected"),
    [
        ([0], 10, 1.0),  # 1/log2(2) = 1, over 1
        ([1], 10, 0.6309297535714575),  # 1/log2(3) = 0.63093, over 1
        ([2], 10, 0.5),  # 1/log2(4) = 1/2, over 1
        # gains 1/log2(2) + 1/log2(4) = 1.5; the best ranking of two has 1/log2(2) + 1/log2(3) = 1.6309297536
        ([0, 2], 10, 0.9197207891481876),
        # 8 and 9 are cut off, 1/log2(4) = 0.5 remains; the best ranking has 1 + 0.6309297536 + 0.5 = 2.1309297536
        ([2, 8, 9], 3, 0.23463936301137822),
        ([0, 1, 2, 3], 2, 1.0),  # at k = 2 no ranking does better than two hits
        ([10], 10, 0.0),  # place 11
    ],
)
def test_ndcg_is_the_gain_over_that_of_the_best_ranking(ranks, k, expected):
    assert ndcg(np.array(ranks), ONE_USER, k) == pytest.approx(expected, abs=1e-12)


def test_hit_rate_asks_for_any_item_in_the_top_k():
    # rank 9 is place 10, rank 10 is place 11
    assert hit_rate(np.array([30, 9, 30, 10, 0, 1, 2]), np.array([0, 2, 4]), 10).tolist() == [1.0, 0.0, 1.0]


def test_mrr_is_one_over_the_place_of_the_best_item():
    # places 1, 2 (of 4 and 2), and 1000, which counts too
    assert mrr(np.array([0, 3, 1, 999]), np.array([0, 1, 3])).tolist() == [1.0, 0.5, 0.001]


def test_metrics_of_many_users_are_those_of_each_alone():
    generator = np.random.default_rng(0)
    ranks, starts = generator.integers(0, 60, 200), np.unique(np.append(generator.integers(0, 200, 50), 0))
    for name, metric in PER_USER.items():
        alone = [metric(own, ONE_USER)[0] for own in np.split(ranks, starts[1:])]
        np.testing.assert_allclose(metric(ranks, starts), alone, rtol=1e-14, err_msg=name)


def test_measure_on_a_world_worked_by_hand():
    """Catalogue a b c d e; one user trained on a, scores a 9, b 1, c 5, d 3, e 4: the ranking is c e d b.

    Held out d and b, ranks 2 and 3: recall@20 = 2/2, ndcg = (1/log2(4) + 1/log2(5)) / (1 + 1/log2(3)), mrr = 1/3.
    A second user has everything in train and is left out. The top 20 shows b, c, d, e of five items: coverage 4/5.
    """
    rows = [("x", "a", "train"), ("x", "d", "test"), ("x", "b", "test")] + [("y", item, "train") for item in "abcde"]
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "part"], orient="row"))
    scores = np.array([[{"a": 9.0, "b": 1.0, "c": 5.0, "d": 3.0, "e": 4.0}[one] for one in dataset.items["item_id"]]] * 2)
    result = measure(Fixed(scores), dataset.train, dataset.test)
    assert dataset.user_ids.names(result.users).to_list() == ["x"]
    expected_ndcg = (1 / math.log2(4) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert result.metrics == pytest.approx(
        {
            "recall@20": 1.0,
            "recall@40": 1.0,
            "ndcg@100": expected_ndcg,
            "hit_rate@10": 1.0,
            "ndcg@10": expected_ndcg,
            "mrr": 1 / 3,
            "coverage@20": 0.8,
        }
    )


# Against plain sorting.


@pytest.mark.parametrize("n_items", [15, 160])  # 15: every k is larger than the catalogue
@pytest.mark.parametrize("levels", [2, 7, None])  # how many different scores there are; None: hardly any ties
@pytest.mark.parametrize("masked", ["train", "train and validation"])
def test_measure_equals_plain_sorting(n_items, levels, masked):
    dataset = random_dataset(n_items, n_items=n_items)
    generator = np.random.default_rng(5)
    scores = generator.random((dataset.n_users, n_items)).astype(np.float32)
    if levels is not None:
        scores = np.floor(scores * levels)
    seen, held_out = dataset.train, dataset.test
    known = dataset.only("train", "validation") if masked == "train and validation" else dataset.train
    result = measure(Fixed(scores), seen, held_out, None if masked == "train" else known, batch_size=7)
    wanted, hidden = items_by_user(held_out), items_by_user(known)
    assert result.users.tolist() == sorted(wanted)
    assert len(wanted) < dataset.n_users
    shown = set()
    for row, user in enumerate(sorted(wanted)):
        ranking = final_ranking(scores[user], hidden.get(user, []), dataset.tie_order)
        shown |= set(ranking[:20])
        for name, value in plain_metrics(ranking, wanted[user]).items():
            assert result.per_user[name][row] == pytest.approx(value, abs=1e-12), (name, user)
    for name, values in result.per_user.items():
        assert result.metrics[name] == pytest.approx(values.mean(), abs=1e-12)
    assert result.metrics["coverage@20"] == pytest.approx(len(shown) / n_items)


def test_measure_equals_ranx(monkeypatch):
    """ranx breaks ties its own way and divides recall by n: it is given places instead of scores, and recall is converted."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than the few numbers here
    import ranx

    dataset = random_dataset(3, n_items=160)
    scores = np.floor(np.random.default_rng(3).random((dataset.n_users, 160)) * 12)
    result = measure(Fixed(scores), dataset.train, dataset.test)
    hidden, wanted = items_by_user(dataset.train), items_by_user(dataset.test)
    qrels, run = {}, {}
    for user in result.users.tolist():
        ranking = final_ranking(scores[user], hidden.get(user, []), dataset.tie_order)
        run[f"{user:04d}"] = {str(item): float(len(ranking) - place) for place, item in enumerate(ranking)}
        qrels[f"{user:04d}"] = {str(item): 1 for item in wanted[user]}
    names = {"ndcg@100": "ndcg@100", "ndcg@10": "ndcg@10", "mrr": "mrr", "hit_rate@10": "hit_rate@10"}
    recalls = {"recall@20": 20, "recall@40": 40}
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), [*names.values(), *recalls], return_mean=False)
    for ours, other in names.items():
        np.testing.assert_allclose(result.per_user[ours], theirs[other], atol=1e-9, err_msg=ours)
    n = np.array([len(wanted[user]) for user in result.users.tolist()])
    assert (n > 20).any()
    for name, k in recalls.items():
        np.testing.assert_allclose(result.per_user[name] * np.minimum(k, n) / n, theirs[name], atol=1e-9, err_msg=name)


# What `measure` promises around the numbers.


def test_neither_batch_size_nor_a_subset_of_users_changes_a_users_numbers():
    dataset = random_dataset(1)
    model = Fixed(np.random.default_rng(1).random((dataset.n_users, dataset.n_items)))
    whole = measure(model, dataset.train, dataset.test)
    one_by_one = measure(model, dataset.train, dataset.test, batch_size=1)
    some = whole.users[::3]
    part = measure(model, dataset.train, dataset.test, users=some)
    assert whole.metrics == one_by_one.metrics
    for name, values in whole.per_user.items():
        np.testing.assert_array_equal(values, one_by_one.per_user[name])
        np.testing.assert_array_equal(values[::3], part.per_user[name])


def test_asked_for_users_without_held_out_items_are_skipped():
    dataset = random_dataset(1)
    model = Fixed(np.random.default_rng(1).random((dataset.n_users, dataset.n_items)))
    result = measure(model, dataset.train, dataset.test, users=np.arange(dataset.n_users))
    with_history = set(items_by_user(dataset.train))
    assert result.users.tolist() == sorted(set(items_by_user(dataset.test)) & with_history)
    assert result.n_without_history == len(set(items_by_user(dataset.test)) - with_history) == 1
    assert all(np.isfinite(value) for value in result.metrics.values())


def test_nobody_with_held_out_items_is_an_error():
    dataset = random_dataset(1)
    with pytest.raises(ValueError, match="no user has a held-out item"):
        measure(Fixed(np.zeros((dataset.n_users, dataset.n_items))), dataset.train, dataset.only())


def test_a_perfect_system_has_one_everywhere_and_the_worst_next_to_nothing():
    dataset = random_dataset(2, n_items=160)
    wanted = dataset.test.interactions.matrix.toarray()
    best = measure(Fixed(wanted), dataset.train, dataset.test).metrics
    assert {name: best[name] for name in best if name != "coverage@20"} == pytest.approx(
        {"recall@20": 1.0, "recall@40": 1.0, "ndcg@100": 1.0, "hit_rate@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0}
    )
    assert measure(Fixed(-wanted), dataset.train, dataset.test).metrics["recall@20"] < 0.05


def test_equal_scores_do_not_favour_popular_items():
    """A system without an opinion is at chance; ordered by popularity it would find the popular held-out items first."""
    generator = np.random.default_rng(4)
    chances = 1 / np.arange(1, 201)
    rows = []
    for user in range(300):
        for place, item in enumerate(generator.choice(200, 8, replace=False, p=chances / chances.sum())):
            rows.append({"user_id": user, "item_id": f"{item:03d}", "part": "test" if place == 0 else "train"})
    dataset = Dataset.from_frame(pl.DataFrame(rows))
    found = measure(Fixed(np.zeros((dataset.n_users, dataset.n_items))), dataset.train, dataset.test)
    popularity = np.tile(dataset.train.interactions.matrix.sum(0), (dataset.n_users, 1))
    by_popularity = measure(Fixed(popularity), dataset.train, dataset.test)
    assert by_popularity.metrics["recall@20"] > 0.3
    assert found.metrics["recall@20"] < 0.2


def test_scores_that_are_not_numbers_are_refused():
    """A diverged model scores NaN, which no item beats: unchecked it would rank every held-out item first."""
    dataset = random_dataset(1)
    with pytest.raises(ValueError, match="(?i)nan|number|finite"):
        measure(Fixed(np.full((dataset.n_users, dataset.n_items), np.nan)), dataset.train, dataset.test)


def test_masking_leaves_the_models_scores_alone():
    dataset = random_dataset(1)
    users = np.array([3, 1])
    scores = np.ones((2, dataset.n_items), dtype=np.float32)
    masked = mask_known(scores, users, dataset.train.interactions)
    assert (scores == 1).all()
    known = items_by_user(dataset.train)
    for row, user in enumerate(users.tolist()):
        assert set(np.flatnonzero(masked[row] == -np.inf).tolist()) == set(known.get(user, []))


# top_k and rank_of.


def test_ties_rank_by_the_tie_order():
    tie_order = np.array([4, 0, 3, 1, 2])
    assert top_k(np.array([[1.0, 1.0, 1.0, 1.0, 1.0]]), 3, tie_order).tolist() == [[1, 3, 4]]
    assert top_k(np.array([[2.0, 1.0, 1.0, 0.0, 1.0]]), 3, tie_order).tolist() == [[0, 1, 4]]


def test_masked_items_are_never_taken_and_empty_places_hold_minus_one():
    inf = np.inf
    scores = np.array([[-inf, 2.0, -inf, 3.0], [-inf, -inf, -inf, -inf], [-5.0, -inf, -inf, -inf]])
    assert top_k(scores, 3, np.arange(4)).tolist() == [[3, 1, -1], [-1, -1, -1], [0, -1, -1]]


def test_k_beyond_the_catalogue_gives_the_whole_catalogue():
    scores = np.array([[0.1, 0.3, 0.2]])
    assert top_k(scores, 10, np.arange(3)).tolist() == [[1, 2, 0]]
    assert top_k(np.array([[0.1, -np.inf, 0.2]]), 10, np.arange(3)).tolist() == [[2, 0, -1]]


def test_an_item_above_all_others_is_taken_first_even_at_plus_infinity():
    scores = np.array([[1.0, np.inf, 2.0]])
    assert rank_of(scores, np.array([0]), np.array([1]), np.arange(3)).tolist() == [0]
    assert top_k(scores, 2, np.arange(3)).tolist() == [[1, 2]]


@pytest.mark.parametrize("k", [1, 5, 30, 64])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_top_k_and_rank_of_agree_with_plain_sorting_on_tied_scores(k, levels):
    generator = np.random.default_rng(k + levels)
    n_items = 50
    scores = generator.integers(0, levels, (12, n_items)).astype(np.float64)
    scores[generator.random(scores.shape) < 0.3] = -np.inf
    tie_order = generator.permutation(n_items)
    best = top_k(scores, k, tie_order)
    assert best.shape == (12, min(k, n_items))
    rows, items = np.nonzero(np.isfinite(scores))
    ranks = rank_of(scores, rows, items, tie_order)
    for row in range(len(scores)):
        masked = np.flatnonzero(np.isinf(scores[row])).tolist()
        ranking = final_ranking(scores[row], masked, tie_order)
        assert best[row].tolist() == (ranking + [-1] * n_items)[: min(k, n_items)]
        assert dict(zip(items[rows == row].tolist(), ranks[rows == row].tolist(), strict=True)) == {
            item: place for place, item in enumerate(ranking)
        }


@pytest.mark.parametrize("width", [1000, 333, 70, 7])
@pytest.mark.parametrize("levels", [1, 5, 10**6])
@pytest.mark.parametrize("k", [1, 6, 2000])
def test_the_best_of_blocks_are_the_best_of_all(k, levels, width):
    """Ties reach over blocks; rows without any score stay empty."""
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
        ranking = final_ranking(scores[row], masked, tie_order)
        expected = (ranking + [-1] * k)[:k]
        assert best.items[row].tolist() == expected
        assert best.scores[row].tolist() == [scores[row, item] if item >= 0 else -np.inf for item in expected]


def test_ranks_do_not_depend_on_how_many_cells_are_asked_for_at_once():
    """More cells than one chunk of 4 million comparisons holds."""
    generator = np.random.default_rng(0)
    scores, tie_order = generator.integers(0, 50, (2, 20_000)).astype(np.float32), generator.permutation(20_000)
    rows, items = np.repeat([0, 1], 250), generator.integers(0, 20_000, 500)
    together = rank_of(scores, rows, items, tie_order)
    alone = [int(rank_of(scores, rows[i : i + 1], items[i : i + 1], tie_order)[0]) for i in range(0, 500, 50)]
    assert together[::50].tolist() == alone


# The interval.


def test_the_bootstrap_interval_covers_a_known_mean_about_95_times_in_100():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.exponential(2.0, 80), seed=trial, draws=200)
        covered += low <= 2.0 <= high
    assert 175 <= covered <= 199  # expected about 186, standard deviation about 4


def test_the_bootstrap_interval_is_as_wide_as_the_normal_one():
    values = np.random.default_rng(1).normal(0.3, 0.2, 2000)
    low, high = bootstrap_interval(values)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.001)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(len(values)), rel=0.1)


def test_the_bootstrap_interval_is_determined_by_its_seed():
    values = np.random.default_rng(1).normal(0.3, 0.2, 100)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values.tolist(), seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_the_bootstrap_interval_of_equal_values_is_that_value():
    assert bootstrap_interval([0.25] * 10) == (0.25, 0.25)
