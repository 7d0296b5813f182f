"""Every system is tied to the items of its training, whatever their numbers."""

import numpy as np
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import checkerboard
from cllm4rec.models.base import Recommender
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from tests.support.systems import ONE_STAGE, VARIANTS, fit, new_system, top_items
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
    [*((name, {}) for name in [*ONE_STAGE, *VARIANTS]), ("itemknn", {"neighbours": 3, "shrinkage": 0.0})],
    ids=[*ONE_STAGE, *VARIANTS, "itemknn with ties at the last neighbour"],
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


@torch.no_grad()
def test_renumbering_the_items_permutes_the_scores_of_cllm4rec_with_renumbered_rows() -> None:
    """What its texts say about an item is read anew, and goes with it."""
    dataset = taste_dataset()
    model = fit(new_system("cllm4rec", item_text="words", linear="none"), dataset)
    order = np.random.default_rng(5).permutation(dataset.n_items)
    reordered = renumbered(dataset, order)
    other = new_system("cllm4rec", item_text="words", linear="none")
    assert isinstance(model, CLLM4Rec)
    assert isinstance(other, CLLM4Rec)
    other.build(reordered).stage = model.stage
    trained = dict(model.net.named_parameters())
    for name, parameter in other.net.named_parameters():
        rows = torch.from_numpy(order) if name.endswith("items.weight") else slice(None)
        parameter.copy_(trained[name][rows])
    assert other.net.item_text is not None
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
