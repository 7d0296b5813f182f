"""Every system is tied to the items of its training, whatever their numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import checkerboard
from cllm4rec.models import system_class
from cllm4rec.models.base import Recommender
from cllm4rec.models.neural import NeuralRecommender
from tests.support.systems import ONE_STAGE, fit, fitted, new_system, top_items
from tests.support.worlds import renumbered, taste_dataset


def test_other_items_than_those_of_training_are_refused(model: Recommender) -> None:
    other = Dataset.from_frame(checkerboard(10, 12), split="random")
    with pytest.raises(ValueError, match="items"):
        model.score(np.array([0]), other)


def test_renumbered_items_are_refused_and_not_mixed_up(model: Recommender) -> None:
    dataset = taste_dataset().train
    with pytest.raises(ValueError, match="items"):
        model.score(np.array([0]), renumbered(dataset, np.arange(dataset.n_items)[::-1]))


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in ONE_STAGE), ("itemknn", {"neighbours": 3, "shrinkage": 0.0})],
    ids=[*ONE_STAGE, "itemknn with ties at the last neighbour"],
)
def test_renumbering_the_items_permutes_the_scores_of_a_refitted_system(
    name: str, settings: dict[str, float]
) -> None:
    dataset = taste_dataset()
    order = np.random.default_rng(5).permutation(dataset.n_items)
    reordered = renumbered(dataset, order)
    users = np.arange(dataset.n_users)
    scores = fit(new_system(name, **settings), dataset).score(users, dataset.train)
    again = fit(new_system(name, **settings), reordered).score(users, reordered.train)
    np.testing.assert_allclose(again, scores[:, order], rtol=1e-4, atol=1e-4 * np.abs(scores).max())


def test_renumbering_the_items_permutes_the_scores_of_cllm4rec_with_renumbered_rows(tmp_path: Path) -> None:
    model, dataset = fitted("cllm4rec"), taste_dataset()
    order = np.random.default_rng(5).permutation(dataset.n_items)
    reordered = renumbered(dataset, order)
    model.save(tmp_path)
    other = system_class("cllm4rec").load(tmp_path)
    assert isinstance(other, NeuralRecommender)
    id_order = np.concatenate([np.arange(dataset.n_users), dataset.n_users + order])
    for table in (other.net.collaborative, other.net.content):
        table.fill(table.whole()[torch.from_numpy(id_order)])
    other.item_ids = reordered.item_ids
    users = np.arange(dataset.n_users)
    scores = model.score(users, dataset.train)
    np.testing.assert_allclose(
        other.score(users, reordered.train), scores[:, order], rtol=1e-4, atol=1e-4 * np.abs(scores).max()
    )
    ids, other_ids = (
        system.item_ids.ids.to_numpy()[top_items(system, data)]
        for system, data in ((model, dataset), (other, reordered))
    )
    np.testing.assert_array_equal(ids, other_ids)
