"""EASE with a prior of text: the formula, what it minimises, and what it may not depend on."""

import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.baselines import item_inverse
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.baselines.text_prior import TextPrior
from cllm4rec.models.readings.item_texts import ItemVectors
from tests.support.worlds import taste_dataset, with_user

LAMBDA, PRIOR, SHARE = 40.0, 3.0, 0.7
COLD = [7, 20]  # items without events in `cold_dataset`


@cache
def vectors(width: int = 9) -> ItemVectors:
    """Random vectors of the 60 items; item 3 has none."""
    dataset = taste_dataset()
    values = np.random.default_rng(4).normal(1.0, 1.0, (dataset.n_items, width)).astype(np.float32)
    present = np.arange(dataset.n_items) != 3
    return ItemVectors(dataset.item_ids.ids, values * present[:, None], present)


@cache
def cold_dataset() -> Dataset:
    """The taste dataset; all events of two items are test events."""
    dataset = taste_dataset()
    held_out = np.isin(dataset.interactions.items, COLD)
    return replace(dataset, part=np.where(held_out, 2, dataset.part).astype(np.uint8))


def unit_columns(given: ItemVectors) -> np.ndarray:
    """F (d, n_items): centred, of length 1, zero where there is no vector; all items have training events."""
    columns = given.values.T.astype(np.float64)
    columns = columns - columns[:, given.present].mean(1, keepdims=True)
    columns[:, ~given.present] = 0.0
    return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)


def by_the_formula(events: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The formula of L3AE with dense inverses over items."""
    identity = np.eye(events.shape[1])
    first = np.linalg.inv(columns.T @ columns + PRIOR * identity)
    prior = -first / np.diag(first)
    np.fill_diagonal(prior, 0.0)
    second = np.linalg.inv(events.T @ events + LAMBDA * identity)
    drawn = second @ prior
    weights = SHARE * LAMBDA * drawn
    weights -= second * ((1 + SHARE * LAMBDA * np.diag(drawn)) / np.diag(second))
    np.fill_diagonal(weights, 0.0)
    return weights


def ridge_without_diagonal(
    inputs: np.ndarray, penalties: list[tuple[float, np.ndarray]], targets: np.ndarray
) -> np.ndarray:
    """B with a zero diagonal that minimises |targets - inputs B|^2 + sum of p |B - centre|^2.

    Each column is a least-squares problem of its own, over the rows without its own item.
    """
    n_items = inputs.shape[1]
    solution = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.arange(n_items) != item
        rows, right = [inputs[:, others]], [targets[:, item]]
        for penalty, centre in penalties:
            rows.append(np.sqrt(penalty) * np.eye(n_items - 1))
            right.append(np.sqrt(penalty) * centre[others, item])
        solution[others, item] = np.linalg.lstsq(np.vstack(rows), np.concatenate(right), rcond=None)[0]
    return solution


@pytest.mark.parametrize("width", [9, 60, 90])
def test_the_weights_are_those_of_the_formula(width: int) -> None:
    train = taste_dataset().train
    assert len(np.unique(train.interactions.items)) == train.n_items
    expected = by_the_formula(train.interactions.matrix.toarray(), unit_columns(vectors(width)))
    weights = TextPrior(vectors(width), train).weights(LAMBDA, PRIOR, SHARE)
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-8)


def test_the_weights_minimise_their_objective() -> None:
    train, nothing = taste_dataset().train, np.zeros((60, 60))
    events, columns = train.interactions.matrix.toarray(), unit_columns(vectors())
    prior = ridge_without_diagonal(columns, [(PRIOR, nothing)], columns)
    penalties = [((1 - SHARE) * LAMBDA, nothing), (SHARE * LAMBDA, prior)]
    expected = ridge_without_diagonal(events, penalties, events)
    weights = TextPrior(vectors(), train).weights(LAMBDA, PRIOR, SHARE)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-7)


def test_share_0_is_ease_bit_for_bit() -> None:
    given = EASEConfig(regularization=LAMBDA)
    reading = replace(given, text_prior=True, prior_regularization=PRIOR, prior_share=0.0)
    plain, with_texts = (EASE(config).fit(taste_dataset()) for config in (given, reading))
    np.testing.assert_array_equal(with_texts.weights, plain.weights)


def test_an_item_without_a_vector_has_no_prior() -> None:
    prior = TextPrior(vectors(), taste_dataset().train)
    scaled, own = prior._prior(PRIOR)
    matrix = prior.vectors @ scaled + np.diag(own)
    assert not matrix[3].any()
    assert not matrix[:, 3].any()
    assert np.abs(np.diag(matrix)).max() < 1e-12


def test_one_inverse_serves_all_settings_of_a_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    inverses, inv = [], item_inverse.scipy.linalg.inv
    monkeypatch.setattr(
        item_inverse.scipy.linalg, "inv", lambda *given, **also: inverses.append(1) or inv(*given, **also)
    )
    train = taste_dataset().train
    prior = TextPrior(vectors(), train)
    prior.weights(LAMBDA, 10.0, 0.2)
    weights = prior.weights(LAMBDA, PRIOR, SHARE).copy()
    assert len(inverses) == 1
    prior.weights(2 * LAMBDA, PRIOR, SHARE)
    assert len(inverses) == 2
    np.testing.assert_array_equal(TextPrior(vectors(), train).weights(LAMBDA, PRIOR, SHARE), weights)
    np.testing.assert_array_equal(prior.weights(LAMBDA, PRIOR, SHARE), weights)


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TextPrior(vectors(), taste_dataset().train).weights(LAMBDA, PRIOR, SHARE)
    monkeypatch.setattr(item_inverse, "NUMBERS_AT_ONCE", 7 * 60)
    in_blocks = TextPrior(vectors(), taste_dataset().train).weights(LAMBDA, PRIOR, SHARE)
    np.testing.assert_allclose(in_blocks, whole, rtol=1e-6, atol=1e-9)


def test_single_precision_differs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    double = TextPrior(vectors(), taste_dataset().train).weights(LAMBDA, PRIOR, SHARE)
    monkeypatch.setattr(item_inverse, "MOST_IN_DOUBLE", 59)
    prior = TextPrior(vectors(), taste_dataset().train)
    single = prior.weights(LAMBDA, PRIOR, SHARE)
    assert prior.inverse.dtype == prior.vectors.dtype == np.float32
    assert 0 < np.abs(single - double).max() < 1e-5 * np.abs(double).max()


def test_the_memory_is_two_matrices_and_the_item_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 24 bytes n^2, where nearly all pairs of items have a common user, plus what the events take."""
    n_users, n_items = 2_000, 800
    generator = np.random.default_rng(0)
    items = np.sort(generator.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1)[:, :60]).ravel()
    events = Interactions(np.repeat(np.arange(n_users), 60), items, n_users, n_items)
    ids = pl.DataFrame({"item_id": np.arange(n_items)})
    users = pl.DataFrame({"user_id": np.arange(n_users)})
    train = Dataset(events, users, ids, np.zeros(len(events), dtype=np.uint8))
    values = generator.normal(size=(n_items, 4)).astype(np.float32)
    given = ItemVectors(ids["item_id"], values, np.ones(n_items, dtype=bool))
    monkeypatch.setattr(item_inverse, "NUMBERS_AT_ONCE", 10 * n_items)
    before = train.interactions.matrix
    assert (before.T @ before).nnz > 0.95 * n_items**2
    tracemalloc.start()
    try:
        prior = TextPrior(given, train)
        events_size = tracemalloc.get_traced_memory()[0]
        for penalty in (LAMBDA, 2 * LAMBDA):  # the second has the weights of the first in memory
            prior.weights(penalty, PRIOR, SHARE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert events_size > 8 * n_items**2, "arrays are traced"
    of_events = 4 * 12 * len(events)  # the sparse events, their transpose and their copies
    assert peak < 24 * n_items**2 + of_events


def test_an_item_without_events_is_scored_by_its_text() -> None:
    """Items whose vector is that of the cold item speak most for it. In EASE nothing does."""
    train = cold_dataset().train
    assert not set(COLD) & set(train.interactions.items.tolist())
    alike = [11, 12, 13]
    other = np.setdiff1d(np.arange(60), alike)
    values = vectors().values.copy()
    values[alike] = values[COLD[0]]
    given = replace(vectors(), values=values)
    weights = TextPrior(given, train).weights(LAMBDA, PRIOR, SHARE)
    assert weights[alike, COLD[0]].min() > weights[other, COLD[0]].max()
    assert weights[COLD[0], alike].min() > 0, "a new event of the cold item counts too"
    plain = TextPrior(given, train).weights(LAMBDA, PRIOR, 0.0)
    assert not plain[:, COLD].any()


def test_the_column_of_an_item_without_events_is_a_regression_on_the_others() -> None:
    """As by the formula on the items with events and this one, whose vector was not fitted."""
    train = cold_dataset().train
    prior = TextPrior(vectors(), train)
    scaled, own = prior._prior(PRIOR)
    warm = prior.vectors[prior.in_training]  # (W, d)
    expected = np.linalg.solve(warm @ warm.T + PRIOR * np.eye(len(warm)), warm @ prior.vectors[COLD].T)
    column = (prior.vectors @ scaled + np.diag(own))[:, COLD]
    np.testing.assert_allclose(column[prior.in_training], expected, rtol=1e-9, atol=1e-12)


def test_the_vector_of_an_item_without_events_changes_no_weight_of_others() -> None:
    train = cold_dataset().train
    other = vectors().values.copy()
    other[COLD] = np.random.default_rng(9).normal(0, 100, other[COLD].shape)
    one = TextPrior(vectors(), train).weights(LAMBDA, PRIOR, SHARE)
    two = TextPrior(replace(vectors(), values=other), train).weights(LAMBDA, PRIOR, SHARE)
    warm = np.setdiff1d(np.arange(60), COLD)
    np.testing.assert_array_equal(one[np.ix_(warm, warm)], two[np.ix_(warm, warm)])
    assert not np.array_equal(one, two)


def test_the_text_of_a_planted_twin_makes_the_cold_item_first() -> None:
    """The whole way: items of a series share a word; a reader of the series gets its new part."""
    generator = np.random.default_rng(0)
    series = [f"saga {'abcde'[number % 5]}{number}" for number in range(12)]
    titles = [f"{word} tale {word}{number}" for word in ("fern", "moss") for number in range(12)] + series
    items = pl.DataFrame({"item_id": list(range(36)), "title": titles})
    events = [
        {"user_id": f"u{user}", "item_id": int(item), "part": "test" if item == 30 else "train"}
        for user in range(40)
        for item in 12 * (user % 3) + generator.choice(12, 6, replace=False)
    ]
    dataset = Dataset.from_frame(pl.DataFrame(events), items)
    config = EASEConfig(regularization=5.0, text_prior=True, prior_regularization=1.0, prior_share=0.9)
    model = EASE(config).fit(dataset.train)
    reader = dataset.item_ids.index([24, 25, 26])
    seen = with_user(dataset.train, "a reader of the saga", reader)
    scores = model.score(np.array([dataset.n_users]), seen)[0]
    cold = dataset.item_ids.index([30])[0]
    of_others = dataset.item_ids.index(list(range(24)))
    assert cold not in dataset.train.interactions.items
    assert scores[cold] > scores[of_others].max()


@pytest.mark.parametrize("number", [0.0, 0.1])
def test_equal_vectors_are_refused(number: float) -> None:
    dataset = taste_dataset()
    values = np.full((dataset.n_items, 5), number, dtype=np.float32)
    values[0] = 3.0
    present = np.arange(dataset.n_items) > 0  # item 0 has no vector
    with pytest.raises(ValueError, match="the vectors of all items with training events are equal: give"):
        TextPrior(ItemVectors(dataset.item_ids.ids, values, present), dataset.train)
