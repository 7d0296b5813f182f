"""`measure` against numbers worked by hand, plain sorting and the library ranx."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import full_ranking, measure, measure_choices
from cllm4rec.evaluation.full_ranking import ranks_in_lists
from cllm4rec.metrics import FAMILIES, KS, NOT_LISTED
from tests.support.rankings import final_ranking
from tests.support.scorers import Scorer, fixed_scores


def random_dataset(seed: int, n_users: int = 40, n_items: int = 90) -> Dataset:
    """Users with 3 to 2/3 n_items events; every fourth user has none held out."""
    generator = np.random.default_rng(seed)
    events = []
    for user in range(n_users):
        n = int(generator.integers(3, max(4, 2 * n_items // 3)))
        for item in generator.choice(n_items, n, replace=False):
            part = "train"
            if user % 4:
                part = str(generator.choice(["train", "validation", "test"], p=[0.5, 0.2, 0.3]))
            events.append({"user_id": f"u{user}", "item_id": f"i{item}", "part": part})
    everything = [{"user_id": "collector", "item_id": f"i{item}", "part": "train"} for item in range(n_items)]
    return Dataset.from_frame(pl.DataFrame(events + everything))


def items_by_user(dataset: Dataset) -> dict[int, list[int]]:
    """The items of each user that has any, in plain Python."""
    items_of: dict[int, list[int]] = {}
    for user, item in zip(
        dataset.interactions.users.tolist(), dataset.interactions.items.tolist(), strict=True
    ):
        items_of.setdefault(user, []).append(item)
    return items_of


def plain_metrics(ranking: list[int], relevant: list[int], k: int) -> dict[str, float]:
    """The metrics of ranks by their definitions, from a list of items and a list of held-out items."""
    gains = [1 / math.log2(rank + 2) for rank in range(k)]
    hits = [rank for rank, item in enumerate(ranking[:k]) if item in relevant]
    return {
        "recall": len(hits) / min(k, len(relevant)),
        "ndcg": sum(gains[rank] for rank in hits) / sum(gains[: len(relevant)]),
        "hit_rate": float(len(hits) > 0),
        "mrr": 1 / (hits[0] + 1) if hits else 0.0,
    }


def plain_metrics_of_lists(ranking: list[int], train: Dataset, k: int) -> dict[str, float]:
    """The metrics of lists by their definitions."""
    items_of, order = items_by_user(train), train.tie_order.tolist()
    events = [item for items in items_of.values() for item in items]
    by_popularity = sorted(range(train.n_items), key=lambda item: (-events.count(item), order[item]))
    popular = set(by_popularity[: math.ceil(train.n_items / 5)])
    shares = [sum(item in items for items in items_of.values()) / len(items_of) for item in ranking[:k]]
    return {
        "novelty": sum(-math.log2(share) for share in shares) / len(shares),
        "popularity_share": len(popular & set(ranking[:k])) / len(shares),
    }


def plain_gini(counts: list[int]) -> float:
    """Mean absolute difference of all pairs of counts, over twice the mean; scaled by n / (n - 1)."""
    n = len(counts)
    pairs = sum(abs(left - right) for left in counts for right in counts)
    return pairs / (2 * n * sum(counts)) * n / (n - 1)


def test_measure_on_a_dataset_worked_by_hand() -> None:
    """Catalogue a b c d e. User x trained on a and scores a 9, b 1, c 5, d 3, e 4: the ranking is c e d b.

    Held out are d and b at ranks 2 and 3. Hence recall@20 = 2/2, mrr = 1/3, mrr@2 = 0,
    and ndcg = (1/log2(4) + 1/log2(5)) / (1 + 1/log2(3)).
    User y has everything in train and is left out. The top 20 lists b, c, d, e of five items: coverage 4/5.
    Sorted numbers of lists 0 1 1 1 1 have the Gini index (0 - 2 + 0 + 2 + 4) / (4 * 4).
    One of two users trained on each listed item: 1 bit. The popular item of five is a.
    """
    rows = [("x", "a", "train"), ("x", "d", "test"), ("x", "b", "test")] + [
        ("y", item, "train") for item in "abcde"
    ]
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "part"], orient="row"))
    by_item = {"a": 9.0, "b": 1.0, "c": 5.0, "d": 3.0, "e": 4.0}
    scores = np.array([[by_item[item] for item in dataset.items["item_id"]]] * 2)
    names = ("recall", "ndcg", "hit_rate", "mrr", "novelty", "popularity_share", "gini", "coverage")
    result = measure(fixed_scores(dataset, scores), dataset, metrics=[*names, "mrr@2"], ks=[20])
    assert dataset.user_ids.names(result.users).to_list() == ["x"]
    assert result.metrics == pytest.approx(
        {
            "recall@20": 1.0,
            "ndcg@20": (1 / math.log2(4) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
            "hit_rate@20": 1.0,
            "mrr@20": 1 / 3,
            "novelty@20": 1.0,
            "popularity_share@20": 0.0,
            "gini@20": 0.25,
            "coverage@20": 0.8,
            "mrr@2": 0.0,
        }
    )


@pytest.mark.parametrize("n_items", [15, 160])  # 15: every k but one is larger than the catalogue
@pytest.mark.parametrize("levels", [2, 7, None])  # how many different scores there are; None: hardly any ties
@pytest.mark.parametrize("part", ["validation", "test"])
def test_measure_equals_plain_sorting(
    n_items: int, levels: int | None, part: Literal["validation", "test"], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = random_dataset(n_items, n_items=n_items)
    scores = np.random.default_rng(5).random((dataset.n_users, n_items)).astype(np.float32)
    if levels is not None:
        scores = np.floor(scores * levels)
    held_out = dataset.only(part)
    known = dataset.only("train", "validation") if part == "test" else dataset.train
    monkeypatch.setattr(full_ranking, "USERS_AT_ONCE", 7)
    result = measure(fixed_scores(dataset, scores), dataset, part)
    relevant, hidden = items_by_user(held_out), items_by_user(known)
    assert result.users.tolist() == sorted(relevant)
    assert len(relevant) < dataset.n_users
    rankings = {user: final_ranking(scores[user], hidden[user], dataset.tie_order) for user in relevant}
    for k in KS:
        for row, user in enumerate(sorted(relevant)):
            expected = plain_metrics(rankings[user], relevant[user], k)
            expected |= plain_metrics_of_lists(rankings[user], dataset.train, k)
            for name, value in expected.items():
                assert result.per_user[f"{name}@{k}"][row] == pytest.approx(value, abs=1e-12), (name, user)
        shown = [item for ranking in rankings.values() for item in ranking[:k]]
        assert result.metrics[f"coverage@{k}"] == pytest.approx(len(set(shown)) / n_items)
        gini = plain_gini([shown.count(item) for item in range(n_items)])
        assert result.metrics[f"gini@{k}"] == pytest.approx(gini, abs=1e-12)
    for name, values in result.per_user.items():
        assert result.metrics[name] == pytest.approx(values.mean(), abs=1e-12)


def test_measure_equals_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    """ranx breaks ties in another way and divides recall by n: it gets ranks as scores."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than the few numbers here
    import ranx

    dataset = random_dataset(3, n_items=160)
    scores = np.floor(np.random.default_rng(3).random((dataset.n_users, 160)) * 12)
    result = measure(fixed_scores(dataset, scores), dataset)
    hidden, relevant = items_by_user(dataset.only("train", "validation")), items_by_user(dataset.test)
    qrels, run = {}, {}
    for user in result.users.tolist():
        ranking = final_ranking(scores[user], hidden[user], dataset.tie_order)
        run[f"{user:04d}"] = {str(item): float(len(ranking) - rank) for rank, item in enumerate(ranking)}
        qrels[f"{user:04d}"] = {str(item): 1 for item in relevant[user]}
    names = [f"{family}@{k}" for family in ("ndcg", "mrr", "hit_rate") for k in KS]
    recalls = {f"recall@{k}": k for k in KS}
    expected = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), [*names, *recalls], return_mean=False)
    for name in names:
        np.testing.assert_allclose(result.per_user[name], expected[name], atol=1e-9, err_msg=name)
    n = np.array([len(relevant[user]) for user in result.users.tolist()])
    assert (n > 20).any()
    for name, k in recalls.items():
        converted = result.per_user[name] * np.minimum(k, n) / n
        np.testing.assert_allclose(converted, expected[name], atol=1e-9, err_msg=name)


def test_ranks_are_looked_up_in_lists() -> None:
    """Item 4 is the last of row 0 and the first of row 1; row 2 is empty after item 0."""
    lists = np.array([[2, 0, 4], [4, 1, 3], [0, -1, -1]])
    rows, items = np.array([0, 0, 1, 1, 2, 2, 0]), np.array([4, 1, 4, 3, 0, 4, 2])
    expected = [2, NOT_LISTED, 0, 2, 0, NOT_LISTED, 0]
    assert ranks_in_lists(lists, rows, items, 5).tolist() == expected


def random_scorer(dataset: Dataset, seed: int = 1) -> Scorer:
    return fixed_scores(dataset, np.random.default_rng(seed).random((dataset.n_users, dataset.n_items)))


def test_neither_batch_size_nor_a_subset_of_users_changes_a_users_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = random_dataset(1)
    model = random_scorer(dataset)
    whole = measure(model, dataset)
    subset = measure(model, dataset, users=whole.users[::3])
    monkeypatch.setattr(full_ranking, "USERS_AT_ONCE", 1)
    one_by_one = measure(model, dataset)
    assert whole.metrics == one_by_one.metrics
    assert whole.slices == one_by_one.slices
    for name, values in whole.per_user.items():
        np.testing.assert_array_equal(values, one_by_one.per_user[name])
        np.testing.assert_array_equal(values[::3], subset.per_user[name])


def test_a_metric_does_not_depend_on_the_others_that_are_asked_for() -> None:
    dataset = random_dataset(1)
    whole, alone = (
        measure(random_scorer(dataset), dataset, metrics=names) for names in (FAMILIES, ["mrr@7"])
    )
    assert list(alone.metrics) == ["mrr@7"]
    both = measure(random_scorer(dataset), dataset, metrics=["mrr", "ndcg@100"], ks=[7])
    assert both.metrics["mrr@7"] == alone.metrics["mrr@7"]
    assert both.metrics["ndcg@100"] == whole.metrics["ndcg@100"]


def test_asked_for_users_without_held_out_items_are_skipped() -> None:
    dataset = random_dataset(1)
    result = measure(random_scorer(dataset), dataset, users=np.arange(dataset.n_users))
    with_history = set(items_by_user(dataset.train))
    assert result.users.tolist() == sorted(set(items_by_user(dataset.test)) & with_history)
    assert result.n_without_history == len(set(items_by_user(dataset.test)) - with_history) == 1
    assert all(np.isfinite(value) for value in result.metrics.values())


def test_users_are_numbers_in_any_order() -> None:
    dataset = random_dataset(1)
    model = random_scorer(dataset)
    users = measure(model, dataset).users[:3].tolist()
    expected = measure(model, dataset, users=np.array(users))
    for same in (users, users[::-1] + users, tuple(users), pl.Series(users)):
        assert measure(model, dataset, users=same).metrics == expected.metrics


@pytest.mark.parametrize("users", [[41], [-1], [0.5], [True], ["u1"], [[1, 2]], 1, "12"])
def test_numbers_of_no_user_are_refused(users: list[int]) -> None:
    dataset = random_dataset(1)
    for function in (measure, measure_choices):
        with pytest.raises(ValueError, match="`users` is .*: give numbers from 0 to 40, as dataset.user_ids"):
            function(random_scorer(dataset), dataset, users=users)


def test_an_empty_selection_is_refused() -> None:
    dataset = random_dataset(1)
    without_test = np.flatnonzero(np.diff(dataset.test.interactions.indptr) == 0)
    for function in (measure, measure_choices):
        for users in ([], np.empty(0, dtype=np.int64), without_test):
            with pytest.raises(ValueError, match="there is nothing to measure"):
                function(random_scorer(dataset), dataset, users=users)


def test_a_dataset_is_named_by_its_folder(tmp_path: Path) -> None:
    dataset = random_dataset(1, n_items=160)
    dataset.save(tmp_path / "data")
    model = random_scorer(dataset)
    for function in (measure, measure_choices):
        expected = function(model, dataset)
        for folder in (tmp_path / "data", str(tmp_path / "data")):
            named = function(model, folder)
            assert (named.metrics, named.conditions) == (expected.metrics, expected.conditions)
        with pytest.raises(ValueError, match="is no dataset"):
            function(model, dataset.test.interactions)


def test_nobody_with_a_history_is_an_error() -> None:
    rows = [("x", "a", "test"), ("y", "a", "train"), ("y", "b", "train")]
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "part"], orient="row"))
    with pytest.raises(ValueError, match="no user has a held-out item"):
        measure(random_scorer(dataset), dataset)


def test_a_perfect_system_has_one_everywhere_and_the_worst_next_to_nothing() -> None:
    dataset = random_dataset(2, n_items=160)
    relevant = dataset.test.interactions.matrix.toarray()
    metrics = ("recall", "ndcg", "hit_rate", "mrr")
    best = measure(fixed_scores(dataset, relevant), dataset, metrics=metrics).metrics
    assert best == pytest.approx({f"{name}@{k}": 1.0 for name in metrics for k in KS})
    assert measure(fixed_scores(dataset, -relevant), dataset).metrics["recall@20"] < 0.05


def test_equal_scores_do_not_favour_popular_items() -> None:
    """Constant scores give chance level; with ties in order of popularity they would find popular items."""
    generator = np.random.default_rng(4)
    chances = 1 / np.arange(1, 201)
    events = []
    for user in range(300):
        for index, item in enumerate(generator.choice(200, 8, replace=False, p=chances / chances.sum())):
            part = "test" if index == 0 else "train"
            events.append({"user_id": user, "item_id": f"{item:03d}", "part": part})
    dataset = Dataset.from_frame(pl.DataFrame(events))
    by_tie_order = measure(fixed_scores(dataset, np.zeros((dataset.n_users, dataset.n_items))), dataset)
    popularity = np.tile(dataset.train.interactions.matrix.sum(0), (dataset.n_users, 1))
    by_popularity = measure(fixed_scores(dataset, np.asarray(popularity)), dataset)
    assert by_popularity.metrics["recall@20"] > 0.3
    assert by_tie_order.metrics["recall@20"] < 0.2
    assert by_popularity.metrics["popularity_share@20"] > 2 * by_tie_order.metrics["popularity_share@20"]
    assert by_popularity.metrics["novelty@20"] < by_tie_order.metrics["novelty@20"]
    assert by_popularity.metrics["gini@20"] > 0.5


def test_scores_that_are_not_numbers_are_refused() -> None:
    """A diverged model scores NaN. Unchecked, every held-out item would be ranked first."""
    dataset = random_dataset(1)
    scores = np.full((dataset.n_users, dataset.n_items), np.nan)
    with pytest.raises(ValueError, match="(?i)nan|number|finite"):
        measure(fixed_scores(dataset, scores), dataset)


def test_what_is_measured_is_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """`measure` reads the lists of `rank_batches` and asks the system for nothing else."""
    dataset = random_dataset(1)
    model, lists = random_scorer(dataset), random_scorer(dataset, seed=2)
    monkeypatch.setattr(model, "rank_batches", lists.rank_batches)
    assert measure(model, dataset).metrics == measure(lists, dataset).metrics
    assert not model.asked
