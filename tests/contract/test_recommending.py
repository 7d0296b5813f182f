"""Every system scores the catalogue and recommends the best unseen items."""

import numpy as np
import pytest

from cllm4rec.models import inner_product
from cllm4rec.models.base import Recommender
from tests.support.systems import top_items
from tests.support.worlds import taste_dataset


def test_scores_are_finite_and_cover_the_catalogue(model: Recommender) -> None:
    dataset = taste_dataset()
    scores = model.score(np.array([3, 0, 7]), dataset.train)
    assert scores.shape == (3, dataset.n_items)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_recommended_items_are_the_best_unseen_ones_in_order(model: Recommender) -> None:
    dataset = taste_dataset()
    users = np.arange(dataset.n_users)
    scores, best = model.score(users, dataset.train), model.rank(users, dataset.train, k=10)
    for user in users:
        seen = dataset.train.interactions.history(user)
        unseen = np.setdiff1d(np.arange(dataset.n_items), seen)
        np.testing.assert_array_equal(best.scores[user], np.sort(scores[user, unseen])[::-1][:10])
        np.testing.assert_array_equal(best.scores[user], scores[user, best.items[user]])
        assert len(set(best.items[user])) == 10


@pytest.mark.parametrize("items_at_once", [7, 1, None])
def test_seen_items_are_never_recommended(
    model: Recommender, items_at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = taste_dataset()
    if items_at_once is not None:
        monkeypatch.setattr(inner_product, "SCORES_AT_ONCE", items_at_once * dataset.n_users)
    for user, items in enumerate(top_items(model, dataset, dataset.n_items)):
        unseen = np.setdiff1d(np.arange(dataset.n_items), dataset.train.interactions.history(user))
        assert sorted(items[items >= 0]) == unseen.tolist()


def test_masked_items_are_never_recommended(model: Recommender) -> None:
    dataset = taste_dataset()
    users = np.arange(dataset.n_users)
    best = model.rank(users, dataset.train, dataset.n_items, masked=dataset)
    for user, items in enumerate(best.items):
        assert not set(items[items >= 0]) & set(dataset.interactions.history(user))


def test_a_batch_gives_the_lists_of_its_users_alone(model: Recommender) -> None:
    dataset = taste_dataset()
    users = np.random.default_rng(0).permutation(dataset.n_users)[:25]
    scores, batch = model.score(users, dataset.train), model.rank(users, dataset.train, 10)
    for row, user in enumerate(users):
        alone = model.score(np.array([user]), dataset.train)[0]
        np.testing.assert_allclose(scores[row], alone, rtol=1e-4, atol=1e-4 * np.abs(scores).max())
        np.testing.assert_array_equal(
            batch.items[row], model.rank(np.array([user]), dataset.train, 10).items[0]
        )


def test_batches_together_serve_every_user_in_order(model: Recommender) -> None:
    dataset = taste_dataset()
    users = np.arange(dataset.n_users)
    batches = list(model.rank_batches(users, dataset.train, k=10, batch_size=32))
    np.testing.assert_array_equal(np.concatenate([batch.users for batch in batches]), users)
    np.testing.assert_array_equal(
        np.concatenate([batch.items for batch in batches]), top_items(model, dataset, 10)
    )


def test_scoring_changes_nothing(model: Recommender) -> None:
    dataset = taste_dataset()
    before = model.score(np.arange(10), dataset.train)
    top_items(model, dataset)
    np.testing.assert_array_equal(before, model.score(np.arange(10), dataset.train))


def test_k_beyond_the_catalogue_gives_every_unseen_item_once(model: Recommender) -> None:
    dataset = taste_dataset()
    best = model.rank(np.arange(5), dataset.train, k=10 * dataset.n_items)
    for user, items in enumerate(best.items):
        seen = set(dataset.train.interactions.history(user))
        assert sorted(items[items >= 0]) == sorted(set(range(dataset.n_items)) - seen)
    assert np.isneginf(best.scores[best.items < 0]).all()
    assert np.isfinite(best.scores[best.items >= 0]).all()


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(model: Recommender, k: int) -> None:
    with pytest.raises(ValueError, match=str(k)):
        model.rank(np.arange(2), taste_dataset().train, k)


def test_no_users_give_no_rows(model: Recommender) -> None:
    nobody = np.empty(0, dtype=np.int64)
    assert model.score(nobody, taste_dataset().train).shape == (0, taste_dataset().n_items)
    assert len(model.rank(nobody, taste_dataset().train, 5).items) == 0


def test_lists_can_be_diverse_where_a_system_has_item_vectors(model: Recommender) -> None:
    dataset, users = taste_dataset(), np.arange(6)
    if model.name in ("popularity", "itemknn", "ease"):
        with pytest.raises(ValueError, match=f"^{model.name} has no item vectors, which "):
            model.rank(users, dataset.train, 5, diversity=0.5)
        return
    vectors = model.item_vectors()
    assert vectors.shape[0] == dataset.n_items
    assert not vectors.requires_grad
    plain, diverse = (model.rank(users, dataset.train, 5, diversity=share) for share in (0.0, 1.0))
    np.testing.assert_array_equal(diverse.items[:, 0], plain.items[:, 0])
    assert (diverse.items != plain.items).any()
    for user, items in zip(users, diverse.items, strict=True):
        assert not set(items) & set(dataset.train.interactions.history(user))
