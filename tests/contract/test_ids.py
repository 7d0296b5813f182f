"""Every system recommends by external ids what it ranks by numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cllm4rec import load
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender
from tests.support.worlds import renumbered, taste_dataset, with_user


def named(model: Recommender, users: np.ndarray, seen: Dataset, k: int, **settings: object) -> pl.DataFrame:
    """The lists of `rank`, one row after the other, with names and titles."""
    lists = model.rank(users, seen, k, **settings)
    rows = [
        {
            "user_id": seen.user_ids.ids[int(user)],
            "item_id": seen.item_ids.ids[int(item)],
            "rank": rank,
            "score": float(score),
            "title": seen.items["title"][int(item)],
        }
        for user, items, scores in zip(lists.users, lists.items, lists.scores, strict=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
        if item >= 0
    ]
    return pl.DataFrame(rows, schema_overrides={"score": pl.Float32})


def test_users_are_recommended_what_is_ranked_from_all_their_events(model: Recommender) -> None:
    dataset = taste_dataset()
    users = np.array([5, 0, 5, 41])  # a repeated user is served each time
    table = model.recommend(dataset.user_ids.names(users), 7)
    assert table.columns == ["user_id", "item_id", "rank", "score", "title"]
    assert_frame_equal(table, named(model, users, dataset, 7))


def test_allowed_and_denied_items_are_those_of_the_mask(model: Recommender) -> None:
    dataset, users = taste_dataset(), np.arange(6)
    ids = dataset.item_ids.ids
    table = model.recommend(dataset.user_ids.names(users), 7, allow=ids[:30], deny=ids[20:].to_list())
    excluded = np.arange(dataset.n_items) >= 20
    assert_frame_equal(table, named(model, users, dataset, 7, excluded_items=excluded))


def test_histories_are_served_as_new_users_with_the_same_events(model: Recommender) -> None:
    dataset = taste_dataset().train
    histories = [dataset.interactions.history(user)[::-1] for user in (3, 8)]
    extended = with_user(with_user(dataset, "new A", histories[0]), "new B", histories[1])
    expected = named(model, dataset.n_users + np.arange(2), extended, 9)
    table = model.recommend(histories=[dataset.item_ids.names(history) for history in histories], k=9)
    assert table["user_id"].to_list() == [0] * 9 + [1] * 9
    assert_frame_equal(table.drop("user_id", "score"), expected.drop("user_id", "score"))
    np.testing.assert_allclose(table["score"], expected["score"], rtol=1e-4, atol=1e-4)


def test_a_saved_and_loaded_model_recommends_the_same(model: Recommender, tmp_path: Path) -> None:
    dataset, new = taste_dataset(), tmp_path / "new folder" / "model"
    model.save(new)
    loaded = load(new)
    assert_frame_equal(loaded.items, dataset.items)
    users = dataset.user_ids.ids[:9]
    assert_frame_equal(loaded.recommend(users, dataset=dataset), model.recommend(users))
    histories = [dataset.item_ids.ids[:3], dataset.item_ids.ids[9:10]]
    assert_frame_equal(loaded.recommend(histories=histories), model.recommend(histories=histories))


def test_the_items_of_a_dataset_are_matched_by_their_ids(model: Recommender) -> None:
    dataset = taste_dataset()
    reordered = renumbered(dataset, np.random.default_rng(5).permutation(dataset.n_items))
    kept = dataset.interactions.items < 40
    fewer = replace(
        dataset,
        interactions=replace(dataset.interactions.select(kept), n_items=40),
        items=dataset.items[:40],
        part=dataset.part[kept],
        stored_tie_order=None,
    )
    users = dataset.user_ids.ids[:9]
    assert_frame_equal(model.recommend(users, dataset=reordered), model.recommend(users))
    same_events = replace(fewer, items=dataset.items, interactions=dataset.interactions.select(kept))
    assert_frame_equal(model.recommend(users, dataset=fewer), model.recommend(users, dataset=same_events))


def test_an_unknown_item_of_a_dataset_is_refused_by_name(model: Recommender) -> None:
    dataset = taste_dataset()
    renamed = dataset.items.with_columns(
        item_id=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("no such book")).otherwise("item_id")
    )
    with pytest.raises(ValueError, match=r"^item 'no such book' of the dataset .* \(1 of 60 unknown\)"):
        model.recommend(dataset.user_ids.ids[:1], dataset=replace(dataset, items=renamed))
