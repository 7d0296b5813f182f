"""`measure` against numbers worked by hand, plain sorting and the library ranx."""

import math

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import bootstrap_interval, mask_known, measure
from tests.support.rankings import final_ranking


class FixedScores:
    """A system with fixed scores, (n_users, n_items)."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        return self.scores[users]


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


def plain_metrics(ranking: list[int], relevant: list[int]) -> dict[str, float]:
    """The metrics by their definitions, from a list of items and a list of held-out items."""

    def gain_at(k: int) -> float:
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
        return (
            sum(1 / math.log2(rank + 2) for rank, item in enumerate(ranking[:k]) if item in relevant) / ideal
        )

    def share_at(k: int) -> float:
        return len(set(ranking[:k]) & set(relevant)) / min(k, len(relevant))

    return {
        "recall@20": share_at(20),
        "recall@40": share_at(40),
        "ndcg@100": gain_at(100),
        "hit_rate@10": 1.0 if set(ranking[:10]) & set(relevant) else 0.0,
        "ndcg@10": gain_at(10),
        "mrr": max(1 / (rank + 1) for rank, item in enumerate(ranking) if item in relevant),
    }


def test_measure_on_a_dataset_worked_by_hand() -> None:
    """Catalogue a b c d e. User x trained on a and scores a 9, b 1, c 5, d 3, e 4: the ranking is c e d b.

    Held out are d and b at ranks 2 and 3. Hence recall@20 = 2/2, mrr = 1/3,
    and ndcg = (1/log2(4) + 1/log2(5)) / (1 + 1/log2(3)).
    User y has everything in train and is left out. The top 20 lists b, c, d, e of five items: coverage 4/5.
    """
    rows = [("x", "a", "train"), ("x", "d", "test"), ("x", "b", "test")] + [
        ("y", item, "train") for item in "abcde"
    ]
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "part"], orient="row"))
    by_item = {"a": 9.0, "b": 1.0, "c": 5.0, "d": 3.0, "e": 4.0}
    scores = np.array([[by_item[item] for item in dataset.items["item_id"]]] * 2)
    result = measure(FixedScores(scores), dataset.train, dataset.test)
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


@pytest.mark.parametrize("n_items", [15, 160])  # 15: every k is larger than the catalogue
@pytest.mark.parametrize("levels", [2, 7, None])  # how many different scores there are; None: hardly any ties
@pytest.mark.parametrize("masked", ["train", "train and validation"])
def test_measure_equals_plain_sorting(n_items: int, levels: int | None, masked: str) -> None:
    dataset = random_dataset(n_items, n_items=n_items)
    generator = np.random.default_rng(5)
    scores = generator.random((dataset.n_users, n_items)).astype(np.float32)
    if levels is not None:
        scores = np.floor(scores * levels)
    seen, held_out = dataset.train, dataset.test
    known = dataset.only("train", "validation") if masked == "train and validation" else dataset.train
    result = measure(FixedScores(scores), seen, held_out, None if masked == "train" else known, batch_size=7)
    relevant, hidden = items_by_user(held_out), items_by_user(known)
    assert result.users.tolist() == sorted(relevant)
    assert len(relevant) < dataset.n_users
    shown: set[int] = set()
    for row, user in enumerate(sorted(relevant)):
        ranking = final_ranking(scores[user], hidden.get(user, []), dataset.tie_order)
        shown |= set(ranking[:20])
        for name, value in plain_metrics(ranking, relevant[user]).items():
            assert result.per_user[name][row] == pytest.approx(value, abs=1e-12), (name, user)
    for name, values in result.per_user.items():
        assert result.metrics[name] == pytest.approx(values.mean(), abs=1e-12)
    assert result.metrics["coverage@20"] == pytest.approx(len(shown) / n_items)


def test_measure_equals_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    """ranx breaks ties in another way and divides recall by n: it gets ranks as scores."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than the few numbers here
    import ranx

    dataset = random_dataset(3, n_items=160)
    scores = np.floor(np.random.default_rng(3).random((dataset.n_users, 160)) * 12)
    result = measure(FixedScores(scores), dataset.train, dataset.test)
    hidden, relevant = items_by_user(dataset.train), items_by_user(dataset.test)
    qrels, run = {}, {}
    for user in result.users.tolist():
        ranking = final_ranking(scores[user], hidden.get(user, []), dataset.tie_order)
        run[f"{user:04d}"] = {str(item): float(len(ranking) - rank) for rank, item in enumerate(ranking)}
        qrels[f"{user:04d}"] = {str(item): 1 for item in relevant[user]}
    names = ["ndcg@100", "ndcg@10", "mrr", "hit_rate@10"]
    recalls = {"recall@20": 20, "recall@40": 40}
    expected = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), [*names, *recalls], return_mean=False)
    for name in names:
        np.testing.assert_allclose(result.per_user[name], expected[name], atol=1e-9, err_msg=name)
    n = np.array([len(relevant[user]) for user in result.users.tolist()])
    assert (n > 20).any()
    for name, k in recalls.items():
        converted = result.per_user[name] * np.minimum(k, n) / n
        np.testing.assert_allclose(converted, expected[name], atol=1e-9, err_msg=name)


def test_neither_batch_size_nor_a_subset_of_users_changes_a_users_numbers() -> None:
    dataset = random_dataset(1)
    model = FixedScores(np.random.default_rng(1).random((dataset.n_users, dataset.n_items)))
    whole = measure(model, dataset.train, dataset.test)
    one_by_one = measure(model, dataset.train, dataset.test, batch_size=1)
    subset = measure(model, dataset.train, dataset.test, users=whole.users[::3])
    assert whole.metrics == one_by_one.metrics
    for name, values in whole.per_user.items():
        np.testing.assert_array_equal(values, one_by_one.per_user[name])
        np.testing.assert_array_equal(values[::3], subset.per_user[name])


def test_asked_for_users_without_held_out_items_are_skipped() -> None:
    dataset = random_dataset(1)
    model = FixedScores(np.random.default_rng(1).random((dataset.n_users, dataset.n_items)))
    result = measure(model, dataset.train, dataset.test, users=np.arange(dataset.n_users))
    with_history = set(items_by_user(dataset.train))
    assert result.users.tolist() == sorted(set(items_by_user(dataset.test)) & with_history)
    assert result.n_without_history == len(set(items_by_user(dataset.test)) - with_history) == 1
    assert all(np.isfinite(value) for value in result.metrics.values())


def test_nobody_with_held_out_items_is_an_error() -> None:
    dataset = random_dataset(1)
    with pytest.raises(ValueError, match="no user has a held-out item"):
        measure(FixedScores(np.zeros((dataset.n_users, dataset.n_items))), dataset.train, dataset.only())


def test_a_perfect_system_has_one_everywhere_and_the_worst_next_to_nothing() -> None:
    dataset = random_dataset(2, n_items=160)
    relevant = dataset.test.interactions.matrix.toarray()
    best = measure(FixedScores(relevant), dataset.train, dataset.test).metrics
    assert {name: best[name] for name in best if name != "coverage@20"} == pytest.approx(
        {"recall@20": 1.0, "recall@40": 1.0, "ndcg@100": 1.0, "hit_rate@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0}
    )
    assert measure(FixedScores(-relevant), dataset.train, dataset.test).metrics["recall@20"] < 0.05


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
    by_tie_order = measure(
        FixedScores(np.zeros((dataset.n_users, dataset.n_items))), dataset.train, dataset.test
    )
    popularity = np.tile(dataset.train.interactions.matrix.sum(0), (dataset.n_users, 1))
    by_popularity = measure(FixedScores(popularity), dataset.train, dataset.test)
    assert by_popularity.metrics["recall@20"] > 0.3
    assert by_tie_order.metrics["recall@20"] < 0.2


def test_scores_that_are_not_numbers_are_refused() -> None:
    """A diverged model scores NaN. Unchecked, every held-out item would be ranked first."""
    dataset = random_dataset(1)
    with pytest.raises(ValueError, match="(?i)nan|number|finite"):
        measure(FixedScores(np.full((dataset.n_users, dataset.n_items), np.nan)), dataset.train, dataset.test)


def test_masking_leaves_the_models_scores_alone() -> None:
    dataset = random_dataset(1)
    users = np.array([3, 1])
    scores = np.ones((2, dataset.n_items), dtype=np.float32)
    masked = mask_known(scores, users, dataset.train.interactions)
    assert (scores == 1).all()
    known = items_by_user(dataset.train)
    for row, user in enumerate(users.tolist()):
        assert set(np.flatnonzero(masked[row] == -np.inf).tolist()) == set(known.get(user, []))


def test_the_bootstrap_interval_covers_a_known_mean_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.exponential(2.0, 80), seed=trial, draws=200)
        covered += low <= 2.0 <= high
    assert 175 <= covered <= 199  # expected about 186, standard deviation about 4


def test_the_bootstrap_interval_is_as_wide_as_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 2000)
    low, high = bootstrap_interval(values)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.001)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(len(values)), rel=0.1)


def test_the_bootstrap_interval_is_determined_by_its_seed() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 100)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values.tolist(), seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_the_bootstrap_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval([0.25] * 10) == (0.25, 0.25)
