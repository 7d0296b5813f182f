"""Sequential recommenders predict the next item from the items before it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cllm4rec.corpora.next_item import ItemSequences, NextItemCorpus, PrefixCorpus, item_sequences
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.baselines.popularity import Popularity
from cllm4rec.models.sequential.base import SequentialRecommender
from cllm4rec.models.sequential.gru4rec import GRU4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.systems import new_system, recall_at_1
from tests.support.worlds import cycle_dataset

NAMES = ("sasrec", "gru4rec", "bsarec")


def sequential_system(name: str) -> SequentialRecommender:
    model = new_system(name)
    assert isinstance(model, SequentialRecommender)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_next_item_of_a_cycle_is_certain(name: str) -> None:
    dataset = cycle_dataset()
    model = sequential_system(name).fit_stage(
        dataset.train, "pretrain", TrainConfig(epochs=60, batch_size=16)
    )
    assert recall_at_1(model, dataset) == 1.0
    assert recall_at_1(Popularity().fit(dataset.train), dataset) < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_states_depend_on_the_order_and_not_on_later_items(name: str) -> None:
    model = sequential_system(name).fit_stage(cycle_dataset().train, "pretrain", TrainConfig(epochs=1))
    net = model.net.eval()

    def states(items: list[int]) -> torch.Tensor:
        tokens = torch.tensor([items])
        positions_from_end = torch.arange(len(items) - 1, -1, -1)[None] + 3 - len(items) + 1
        mask = torch.ones_like(tokens, dtype=torch.bool)
        with torch.no_grad():
            return net.states(ItemSequences(tokens=tokens, mask=mask, positions_from_end=positions_from_end))[
                0
            ]

    states_whole, states_swapped = states([1, 2, 3, 4]), states([2, 1, 3, 4])
    assert not torch.allclose(states_whole[-1], states_swapped[-1], atol=1e-4), "the order is read"
    if name != "bsarec":  # only its newest state is read
        other = states([1, 2, 3, 9])
        torch.testing.assert_close(states_whole[:3], other[:3])


@pytest.mark.parametrize("name", NAMES)
def test_a_short_history_scores_the_same_in_a_batch_with_a_long_one(name: str) -> None:
    dataset = cycle_dataset()
    model = sequential_system(name).fit_stage(dataset.train, "pretrain", TrainConfig(epochs=1))
    events = dataset.interactions
    kept = np.arange(len(events)) % 9 < 1 + 8 * (events.users % 2)  # one event or nine
    uneven = replace(dataset, interactions=events.select(kept))
    users = np.arange(dataset.n_users)
    together = model.score(users, uneven)
    alone = np.concatenate([model.score(users[i : i + 1], uneven) for i in users])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_every_item_but_the_first_is_predicted_from_those_before_it() -> None:
    interactions = Interactions(np.array([0, 0, 0, 1, 2, 2]), np.array([5, 3, 4, 1, 2, 0]), 3, 6)
    corpus = NextItemCorpus(interactions, length=50, seed=0)
    assert corpus.users.tolist() == [0, 2], "a single item predicts nothing"
    batch = corpus.batch(np.array([0, 1]), epoch=0)
    assert batch.tokens.tolist() == [[5, 3], [2, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    assert batch.positions_from_end.tolist() == [[1, 0], [0, 0]]
    assert batch.state_index.tolist() == [0, 1, 2]
    assert batch.target_items.tolist() == [3, 4, 0]
    newest = NextItemCorpus(interactions, length=1, seed=0).batch(np.array([0]), epoch=0)
    assert (newest.tokens.tolist(), newest.target_items.tolist()) == ([[3]], [4])


def test_every_prefix_is_an_example_of_its_own() -> None:
    interactions = Interactions(np.array([0, 0, 0, 0, 1, 2, 2]), np.array([5, 3, 4, 1, 1, 2, 0]), 3, 6)
    corpus = PrefixCorpus(interactions, length=2, seed=0)
    assert sorted(corpus.selection(epoch=0).tolist()) == [0, 1, 2, 3]
    assert corpus.lengths.tolist() == [2, 2, 2, 2], "windows are computed whole"
    batch = corpus.batch(np.array([0, 2, 3]), epoch=0)
    assert batch.tokens.tolist() == [[5, 0], [3, 4], [2, 0]], "at most the two newest items"
    assert batch.mask.tolist() == [[True, False], [True, True], [True, False]]
    assert batch.state_index.tolist() == [0, 3, 4]
    assert batch.target_items.tolist() == [3, 1, 0]


def test_gru4rec_computes_in_the_dtype_of_its_weights_under_autocast() -> None:
    model = GRU4Rec().build(cycle_dataset().train)
    batch = item_sequences(Ragged.from_lists([np.array([1, 2, 3])]))
    found = []
    model.net.recurrent.register_forward_hook(lambda module, inputs, states: found.append(states[0]))
    with torch.no_grad():
        plain = model.net.states(batch)
        with torch.autocast("cpu", torch.bfloat16):
            model.net.states(batch)
        assert [states.dtype for states in found] == [torch.float32] * 2
        assert torch.equal(*found)
        torch.testing.assert_close(model.net.double().states(batch), plain.double(), rtol=1e-4, atol=1e-5)
