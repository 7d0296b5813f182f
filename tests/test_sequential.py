"""Sequential recommenders and decayed input: what comes next, from the items before it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.evaluation import measure
from cllm4rec.models import system_class
from cllm4rec.models.base import Recommender
from cllm4rec.models.configs import EASEConfig, ItemKNNConfig
from cllm4rec.models.ease import EASE
from cllm4rec.models.gru4rec import GRU4Rec
from cllm4rec.models.itemknn import ItemKNN
from cllm4rec.models.popularity import Popularity
from cllm4rec.models.sequential import SequentialRecommender
from cllm4rec.text.ragged import Ragged
from cllm4rec.text.sequences import SequenceCorpus, sequence_batch
from cllm4rec.training.config import TrainConfig

NAMES = ("sasrec", "gru4rec")


def cycle_world(n_users: int = 60, n_items: int = 20, length: int = 9) -> Dataset:
    """Everybody goes round one circle of items from a place of their own: what comes next is certain."""
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{(user + step) % n_items}", "timestamp": step}
        for user in range(n_users)
        for step in range(length)
    ]
    return build_dataset(pl.DataFrame(rows), split="leave-last-out")


def new(name: str, **settings: object) -> SequentialRecommender:
    system = system_class(name)
    model = system(system.config_class(**{"dropout": 0.1, **settings}))
    assert isinstance(model, SequentialRecommender)
    return model


def recall_at_1(model: Recommender, dataset: Dataset) -> float:
    seen = dataset.only("train", "validation")
    best = model.recommend(np.arange(dataset.n_users), seen, k=1).items[:, 0]
    return float((best == dataset.test.interactions.items).mean())


@pytest.mark.parametrize("name", NAMES)
def test_the_next_item_of_a_cycle_is_certain(name: str) -> None:
    dataset = cycle_world()
    model = new(name).fit(dataset.train, None, TrainConfig(epochs=60, batch_size=16))
    assert recall_at_1(model, dataset) == 1.0
    assert recall_at_1(Popularity().fit(dataset.train), dataset) < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_states_depend_on_the_order_and_on_nothing_that_comes_later(name: str) -> None:
    model = new(name).fit(cycle_world().train, config=TrainConfig(epochs=1))
    net = model.net.eval()

    def states(items: list[int]) -> torch.Tensor:
        tokens = torch.tensor([items])
        batch = {"tokens": tokens, "mask": torch.ones_like(tokens, dtype=torch.bool)}
        batch["ages"] = torch.arange(len(items) - 1, -1, -1)[None] + 3 - len(items) + 1
        with torch.no_grad():
            return net.states(batch)[0]

    whole, turned = states([1, 2, 3, 4]), states([2, 1, 3, 4])
    assert not torch.allclose(whole[-1], turned[-1], atol=1e-4), "the order is read"
    other = states([1, 2, 3, 9])
    torch.testing.assert_close(whole[:3], other[:3])


@pytest.mark.parametrize("name", NAMES)
def test_a_short_history_scores_the_same_beside_a_long_one(name: str) -> None:
    dataset = cycle_world()
    model = new(name).fit(dataset.train, config=TrainConfig(epochs=1))
    events = dataset.interactions
    kept = np.arange(len(events)) % 9 < 1 + 8 * (events.users % 2)  # one event or nine
    uneven = replace(dataset, interactions=events.select(kept))
    users = np.arange(dataset.n_users)
    together = model.score(users, uneven)
    alone = np.concatenate([model.score(users[i : i + 1], uneven) for i in users])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_every_item_but_the_first_is_predicted_from_those_before_it() -> None:
    interactions = Interactions(np.array([0, 0, 0, 1, 2, 2]), np.array([5, 3, 4, 1, 2, 0]), 3, 6)
    corpus = SequenceCorpus(interactions, length=50, seed=0)
    assert corpus.users.tolist() == [0, 2], "a single item predicts nothing"
    batch = corpus.batch(np.array([0, 1]), epoch=0)
    assert batch["tokens"].tolist() == [[5, 3], [2, 0]]
    assert batch["mask"].tolist() == [[True, True], [True, False]]
    assert batch["ages"].tolist() == [[1, 0], [0, 0]]
    assert batch["read"].tolist() == [0, 1, 2]
    assert batch["targets"].tolist() == [3, 4, 0]
    newest = SequenceCorpus(interactions, length=1, seed=0).batch(np.array([0]), epoch=0)
    assert (newest["tokens"].tolist(), newest["targets"].tolist()) == ([[3]], [4])


def test_gru4rec_reads_in_the_type_of_its_weights_under_autocast() -> None:
    model = GRU4Rec().fit(cycle_world().train, None, TrainConfig(epochs=0))
    batch = sequence_batch(Ragged.of([np.array([1, 2, 3])]))
    found = []
    model.net.recurrent.register_forward_hook(lambda module, given, states: found.append(states[0]))
    with torch.no_grad():
        plain = model.net.states(batch)
        with torch.autocast("cpu", torch.bfloat16):
            model.net.states(batch)
        assert [one.dtype for one in found] == [torch.float32] * 2
        assert torch.equal(*found)
        torch.testing.assert_close(model.net.double().states(batch), plain.double(), rtol=1e-4, atol=1e-5)


def test_decayed_weights_by_hand() -> None:
    interactions = Interactions(np.array([0, 0, 0, 1]), np.array([2, 0, 1, 1]), 2, 3)
    assert interactions.decayed(0.5).toarray().tolist() == [[0.5, 1.0, 0.25], [0.0, 1.0, 0.0]]
    repeated = Interactions(np.array([0, 0, 0]), np.array([2, 0, 2]), 1, 3)
    assert repeated.decayed(0.5).toarray().tolist() == [[0.5, 0.0, 1.0]], "of repeats the newest counts"


@pytest.mark.parametrize(
    ("system", "settings"),
    [(EASE, EASEConfig(regularization=50.0)), (ItemKNN, ItemKNNConfig(neighbours=10, shrinkage=5.0))],
    ids=["ease", "itemknn"],
)
def test_a_decayed_input_is_the_weighted_history(system: type, settings: object) -> None:
    dataset = cycle_world()
    users = np.arange(dataset.n_users)
    plain, decayed = (system(replace(settings, decay=decay)).fit(dataset.train) for decay in (1.0, 0.5))
    weights = dataset.train.interactions.decayed(0.5)
    matrix = plain.weights if system is EASE else plain.similarity.toarray()
    np.testing.assert_allclose(decayed.score(users, dataset.train), weights @ matrix, rtol=1e-5, atol=1e-6)
    assert not np.allclose(plain.score(users, dataset.train), decayed.score(users, dataset.train))


def test_the_decay_is_chosen_on_validation_events_where_order_matters() -> None:
    """On the circle the newest item says all, so that a strong decay is best; and it is measured without fitting anew."""
    dataset, fits = cycle_world(), []

    class Counting(EASE):
        def _fit(self, train: Dataset, settings: EASEConfig) -> None:
            fits.append(settings)
            super()._fit(train, settings)

    model = Counting(EASEConfig(decay=None)).fit(dataset.train, dataset.validation)
    assert model.config.decay is not None and model.config.decay < 1
    assert len(fits) == len(EASE.grid) + 1
    chosen = measure(model, dataset.train, dataset.validation).metrics["ndcg@100"]
    plain = EASE(replace(model.config, decay=1.0)).fit(dataset.train)
    assert chosen > measure(plain, dataset.train, dataset.validation).metrics["ndcg@100"]


@pytest.mark.parametrize("config", [EASEConfig, ItemKNNConfig])
def test_a_decay_is_a_share(config):
    assert (config(decay=1.0).decay, config(decay=0.5).decay) == (1.0, 0.5)
    with pytest.raises(ValueError, match=r"decay is 1\.5: it may not be above 1"):
        config(decay=1.5)
    with pytest.raises(ValueError, match="decay is 0: it has to be above 0"):
        config(decay=0)
