"""EASE and ItemKNN on histories whose older events weigh less."""

from dataclasses import replace

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.evaluation import measure
from cllm4rec.models.baselines.config import EASEConfig, ItemKNNConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.baselines.itemknn import ItemKNN
from tests.support.worlds import cycle_dataset


def test_decayed_weights_by_hand() -> None:
    interactions = Interactions(np.array([0, 0, 0, 1]), np.array([2, 0, 1, 1]), 2, 3)
    assert interactions.decayed(np.arange(2), 0.5).toarray().tolist() == [[0.5, 1.0, 0.25], [0.0, 1.0, 0.0]]
    assert interactions.decayed(np.array([1, 0, 1]), 0.5).toarray().tolist() == [
        [0.0, 1.0, 0.0],
        [0.5, 1.0, 0.25],
        [0.0, 1.0, 0.0],
    ]
    repeated = Interactions(np.array([0, 0, 0]), np.array([2, 0, 2]), 1, 3)
    assert repeated.decayed(np.arange(1), 0.5).toarray().tolist() == [[0.5, 0.0, 1.0]], (
        "of repeats the newest counts"
    )


@pytest.mark.parametrize(
    ("system", "settings"),
    [(EASE, EASEConfig(regularization=50.0)), (ItemKNN, ItemKNNConfig(neighbours=10, shrinkage=5.0))],
    ids=["ease", "itemknn"],
)
def test_a_decayed_input_is_the_weighted_history(system: type, settings: object) -> None:
    dataset = cycle_dataset()
    users = np.arange(dataset.n_users)
    plain, decayed = (system(replace(settings, decay=decay)).fit(dataset.train) for decay in (1.0, 0.5))
    weights = dataset.train.interactions.decayed(users, 0.5)
    matrix = plain.weights if system is EASE else plain.similarity.toarray()
    np.testing.assert_allclose(decayed.score(users, dataset.train), weights @ matrix, rtol=1e-5, atol=1e-6)
    assert not np.allclose(plain.score(users, dataset.train), decayed.score(users, dataset.train))


def test_the_decay_is_chosen_on_validation_events_where_order_matters() -> None:
    """On the cycle only the newest item matters: a strong decay is best.

    It is chosen without a further fit.
    """
    dataset, fits = cycle_dataset(), []

    class Counting(EASE):
        def _fit(self, train: Dataset, settings: EASEConfig) -> None:
            fits.append(settings)
            super()._fit(train, settings)

    model = Counting(EASEConfig(decay=None)).fit(dataset)
    assert model.config.decay is not None and model.config.decay < 1
    assert len(fits) == len(EASE().grids(dataset)[0].fitting) + 1
    chosen = measure(model, dataset, "validation").metrics["ndcg@100"]
    plain = EASE(replace(model.config, decay=1.0)).fit(dataset.train)
    assert chosen > measure(plain, dataset, "validation").metrics["ndcg@100"]


@pytest.mark.parametrize("config", [EASEConfig, ItemKNNConfig])
def test_a_decay_is_a_share(config: type) -> None:
    assert (config(decay=1.0).decay, config(decay=0.5).decay) == (1.0, 0.5)
    with pytest.raises(ValueError, match=r"`decay` is 1\.5: it may not be above 1"):
        config(decay=1.5)
    with pytest.raises(ValueError, match="`decay` is 0: it has to be above 0"):
        config(decay=0)
