"""AlphaRec's form against dense matrices: the graph, the loss, and what a saved model serves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.corpora.history_sets import history_sets
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.pooling.alpharec import AlphaRec, AlphaRecNet
from cllm4rec.models.pooling.config import AlphaRecConfig
from cllm4rec.models.pooling.contrast import ContrastBatch
from cllm4rec.training.config import TrainConfig
from tests.support.systems import fitted, new_system
from tests.support.worlds import cycle_dataset, taste_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16)


def built(dataset: Dataset, **settings: object) -> AlphaRec:
    """A system with random weights."""
    model = new_system("alpharec", **settings)
    assert isinstance(model, AlphaRec)
    model.build(dataset, CONFIG)
    return model


def batch_of(model: AlphaRec, dataset: Dataset, step: int = 0) -> ContrastBatch:
    """A training batch of 30 users."""
    corpus = model.objectives(dataset.train, "pretrain", CONFIG)[0].corpus
    batch = corpus.batch(np.arange(30), 0, step)
    assert isinstance(batch, ContrastBatch)
    return batch


def dense(net: AlphaRecNet, train: Dataset) -> tuple[Tensor, Tensor]:
    """Vectors of users (n_users, width) and items (n_items, width) by the adjacency matrix of the graph."""
    events = torch.from_numpy(train.interactions.matrix.toarray())
    n_users = len(events)
    of_users = events / events.sum(1, keepdim=True).clamp(min=1)
    vectors = torch.cat([of_users @ net.items.vectors, net.items.vectors])
    adjacency = torch.zeros(len(vectors), len(vectors))
    adjacency[:n_users, n_users:] = events
    adjacency[n_users:, :n_users] = events.T
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    step = scale[:, None] * adjacency * scale
    layer = net.output(functional.leaky_relu(net.hidden(vectors)))
    layers = [layer]
    for _ in range(net.config.layers):
        layers.append(step @ layers[-1])
    mean = functional.normalize(torch.stack(layers).mean(0))
    return mean[:n_users], mean[n_users:]


def served(model: AlphaRec, dataset: Dataset, users: np.ndarray) -> Tensor:
    """The states of users by their training histories."""
    net = model.net
    histories = dataset.train.interactions.histories(users)
    return net.states(history_sets(histories), net.layers())


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_training_history_gives_the_state_of_its_user_in_the_graph(layers: int) -> None:
    dataset = taste_dataset()
    model = built(dataset, layers=layers)
    users, items = dense(model.net, dataset.train)
    numbers = np.unique(dataset.train.interactions.users)
    torch.testing.assert_close(served(model, dataset, numbers), users[numbers])
    torch.testing.assert_close(model.net.layers().outputs, items)


def test_gradients_of_users_and_items_are_those_of_dense_matrices() -> None:
    dataset = taste_dataset()
    model = built(dataset)
    users, items = dense(model.net, dataset.train)
    found = served(model, dataset, np.arange(dataset.n_users)), model.net.layers().outputs
    torch.manual_seed(0)
    directions = torch.randn(users.shape), torch.randn(items.shape)
    active = dataset.train.interactions.matrix.sum(1) > 0
    directions[0][torch.from_numpy(~np.asarray(active).ravel())] = 0.0
    parameters = list(model.net.parameters())
    gradients = [
        torch.autograd.grad(
            sum((value * each).sum() for value, each in zip(pair, directions, strict=True)), parameters
        )
        for pair in (found, (users, items))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def dense_loss(model: AlphaRec, dataset: Dataset, batch: ContrastBatch) -> Tensor:
    """InfoNCE, event by event, with each negative divided by its probability."""
    users, items = dense(model.net, dataset.train)
    events = torch.from_numpy(dataset.train.interactions.matrix.toarray()) > 0
    rows = np.unique(dataset.train.interactions.users)[:30]
    exponentials = (users[rows] @ items.T / model.config.temperature).exp()
    total = torch.zeros(())
    for row, user in enumerate(rows):
        others = [n for n, item in enumerate(batch.negatives.tolist()) if not events[user, item]]
        sampled = exponentials[row, batch.negatives[others]] / batch.log_p[others].exp()
        for item in np.flatnonzero(events[user]):
            positive = exponentials[row, item]
            total = total - (positive / (positive + sampled.sum())).log()
    return total


@pytest.mark.parametrize("negatives", [1, 40, 60])
def test_the_loss_is_the_dense_one_over_events(negatives: int) -> None:
    dataset = taste_dataset()
    model = built(dataset, negatives=negatives)
    batch = batch_of(model, dataset)
    assert (len(batch.negatives) == 60) == (negatives == 60)
    found, expected = model.net("recommend", batch)["recommend"], dense_loss(model, dataset, batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    parameters = list(model.net.parameters())
    gradients = [torch.autograd.grad(loss, parameters) for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-2)


def test_a_user_who_has_all_sampled_items_adds_nothing() -> None:
    """There is nothing to contrast with, and the gradient stays finite."""
    dataset = taste_dataset()
    model = built(dataset)
    batch = batch_of(model, dataset)
    first = batch.items[: int(batch.lengths[0])].sort().values
    one = replace(
        batch,
        negatives=first,
        log_p=torch.zeros(len(first)),
        items=first,
        item_rows=torch.zeros_like(first),
        lengths=batch.lengths[:1],
        target_rows=torch.zeros_like(first),
        target_items=first,
    )
    loss = model.net("recommend", one)["recommend"]
    loss.backward()
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() for p in model.net.parameters() if p.grad is not None)


def test_sampled_items_are_those_of_the_step() -> None:
    dataset = taste_dataset()
    model = built(dataset, negatives=20)
    first, again, other = (batch_of(model, dataset, step).negatives for step in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


def test_scores_are_cosines_of_the_trained_weights() -> None:
    """The layers that are kept for scoring are those of the best weights."""
    model, dataset = fitted("alpharec"), taste_dataset()
    assert isinstance(model, AlphaRec)
    users, items = dense(model.net, dataset.train)
    numbers = np.unique(dataset.train.interactions.users)
    expected = (users[numbers] @ items.T).detach().numpy()
    np.testing.assert_allclose(model.score(numbers, dataset.train), expected, atol=1e-5)


def test_an_item_without_training_events_is_scored_by_its_text() -> None:
    dataset = taste_dataset()
    part = np.where(dataset.interactions.items == 7, 2, dataset.part).astype(np.uint8)
    cold = replace(dataset, part=part)
    model = built(cold)
    layers = model.net.layers()
    mapped = model.net.mapped(layers.inner[7])
    torch.testing.assert_close(layers.outputs[7], functional.normalize(mapped, dim=0))


def test_a_saved_model_holds_the_layers_instead_of_the_events(tmp_path: Path) -> None:
    model = fitted("alpharec")
    assert isinstance(model, AlphaRec)
    model.save(tmp_path)
    loaded, expected = AlphaRec.load(tmp_path), model.net.layers()
    assert loaded.net.graph is None
    assert {*loaded._arrays()} == {*loaded._trained(), "items.vectors", "items.passed", "items.outputs"}
    torch.testing.assert_close(loaded.net.items.passed, expected.passed)
    torch.testing.assert_close(loaded.net.layers().inner, expected.inner)


def test_items_without_texts_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match="give `encoder` or `item_vectors`"):
        AlphaRec().check(cycle_dataset())


def test_vectors_may_come_from_a_file(tmp_path: Path) -> None:
    dataset = cycle_dataset()
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(dataset.n_items, 8)))
    model = AlphaRec(AlphaRecConfig(item_vectors=str(tmp_path / "vectors.npy"), width=8, hidden_width=8))
    model.fit(dataset, CONFIG)
    assert np.isfinite(model.score(np.arange(3), dataset.train)).all()


def test_half_precision_gives_nearly_the_same_loss() -> None:
    dataset = taste_dataset()
    model = built(dataset)
    batch = batch_of(model, dataset)
    exact = model.net("recommend", batch)["recommend"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.net("recommend", batch)["recommend"]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=1e-2, atol=0.0)
    rounded.backward()
