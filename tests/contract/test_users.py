"""Every system serves new users from their histories."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from cllm4rec.models import SYSTEMS
from cllm4rec.models.base import Recommender
from tests.support.systems import fit, new_system
from tests.support.worlds import taste_dataset, with_user

PERSONAL = [name for name in SYSTEMS if name != "popularity"]


def test_a_new_user_is_served_from_the_history(model: Recommender) -> None:
    dataset = taste_dataset().train
    history = dataset.interactions.history(0)
    extended = with_user(dataset, "a new reader", history)
    newcomer = np.array([dataset.n_users])
    scores = model.score(newcomer, extended)
    assert scores.shape == (1, dataset.n_items)
    assert np.isfinite(scores).all()
    items = model.rank(newcomer, extended, k=10).items[0]
    assert (items >= 0).all()
    assert not set(items) & set(history)
    for user in (0, 5):
        scores, expected = (model.score(np.array([user]), data) for data in (extended, dataset))
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PERSONAL)
def test_the_history_of_a_new_user_matters(model: Recommender) -> None:
    dataset = taste_dataset().train
    newcomer = np.array([dataset.n_users])
    scores, other_scores = (
        model.score(newcomer, with_user(dataset, "a new reader", dataset.interactions.history(user)))
        for user in (0, 1)
    )
    assert not np.allclose(scores, other_scores)


@pytest.mark.parametrize("name", PERSONAL)
def test_events_after_training_change_the_scores_of_a_trained_user(model: Recommender) -> None:
    dataset = taste_dataset()
    user = np.unique(dataset.validation.interactions.users)[:1]
    later = dataset.only("train", "validation")
    assert not np.array_equal(model.score(user, dataset.train), model.score(user, later))


def test_a_user_number_out_of_range_is_refused(model: Recommender) -> None:
    dataset = taste_dataset().train
    for number in (-1, dataset.n_users):
        with pytest.raises(ValueError, match=f"there is no user {number} in data of {dataset.n_users} users"):
            model.score(np.array([0, number]), dataset)


def test_a_new_user_without_history_is_refused_by_name(model: Recommender) -> None:
    dataset = taste_dataset().train
    extended = with_user(dataset, "stranger-17", np.empty(0, dtype=np.int64))
    with pytest.raises(ValueError, match="stranger-17"):
        model.score(np.array([0, dataset.n_users]), extended)


def test_a_user_without_training_events_is_served_as_a_new_one(model: Recommender) -> None:
    dataset = taste_dataset()
    user = int(dataset.interactions.users[0])
    part = np.where(dataset.interactions.users == user, 2, dataset.part).astype(np.uint8)
    cold = replace(dataset, part=part)
    served = fit(new_system(model.name), cold)
    assert served._trained_users(np.array([user]), cold).tolist() == [-1]
    renamed = cold.users.with_columns(
        user_id=pl.when(pl.int_range(pl.len()) == user).then(pl.lit("new")).otherwise("user_id")
    )
    as_trained = served.score(np.array([user]), cold)
    as_new = served.score(np.array([user]), replace(cold, users=renamed))
    np.testing.assert_array_equal(as_trained, as_new)
    with pytest.raises(ValueError, match="no history"):
        served.score(np.array([user]), cold.train)
