"""A linear model beside the network: its numbers by dense matrices, in training and in every list."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import inner_product
from cllm4rec.models.cllm4rec import linear_path
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.linear_path import (
    MOST_ITEMS,
    START,
    LinearPath,
    PathEASE,
    largest_entries,
    path_model,
)
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

STAGES = {"pretrain": TrainConfig(epochs=0), "finetune": TrainConfig(epochs=1)}


def model_of_path(config: CLLM4RecConfig, dataset: Dataset) -> PathEASE:
    """The model of a linear path that there has to be."""
    model = path_model(config, dataset)
    assert model is not None
    return model


def test_each_row_keeps_its_largest_entries() -> None:
    weights = np.array([[0, 3, -4, 1], [0.5, 0, 0, 0], [2, -2, 0, 1], [1, 2, 3, 0]], dtype=np.float32)
    kept = largest_entries(weights, 2).toarray()
    assert kept.tolist() == [[0, 3, -4, 0], [0.5, 0, 0, 0], [2, -2, 0, 0], [0, 2, 3, 0]]
    np.testing.assert_array_equal(largest_entries(weights, 9).toarray(), weights)


def test_the_path_sums_the_rows_of_a_history() -> None:
    weights = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    path = LinearPath.of(weights)
    path.weight.data.fill_(2.5)
    rows, items = torch.tensor([0, 0, 2]), torch.tensor([4, 1, 4])  # the second history is empty
    expected = 2.5 * torch.from_numpy(np.stack([weights[4] + weights[1], 0 * weights[0], weights[4]]))
    torch.testing.assert_close(path(rows, items, 3), expected)


@pytest.mark.parametrize("linear", ["ease", "ease-text"])
def test_scores_are_those_of_the_network_and_the_linear_model(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear=linear)).fit(dataset, STAGES)
    ease = model_of_path(CLLM4RecConfig(linear=linear), dataset).fit(dataset)
    users, path = np.arange(dataset.n_users), model.net.linear
    assert path is not None
    together = model.score(users, dataset.train)
    weight = float(path.weight.detach())
    assert weight != START, "it is learned"
    model.net.linear = None
    alone = model.score(users, dataset.train)
    model.net.linear = path
    of_ease = weight * np.asarray(dataset.train.interactions.matrix @ ease.weights)
    np.testing.assert_allclose(together, alone + of_ease, rtol=1e-4, atol=1e-4)
    whole = model.rank(users, dataset.train, k=7)
    monkeypatch.setattr(inner_product, "SCORES_AT_ONCE", 3 * len(users))
    blocked = model.rank(users, dataset.train, k=7)
    np.testing.assert_array_equal(whole.items, blocked.items)
    model.save(tmp_path)
    np.testing.assert_allclose(CLLM4Rec.load(tmp_path).score(users, dataset.train), together, rtol=1e-5)


def test_the_loss_reads_the_linear_model() -> None:
    """With an untrained network of zeros, the loss is that of the linear scores alone."""
    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear="ease", content_ratio=0)).build(dataset)
    assert model.net.linear is not None
    model.net.linear.weight.data.fill_(3.0)
    model.net.collaborative.items.weight.data.zero_()
    objective = model.objectives(dataset.train, "finetune", TrainConfig())[-1]
    batch = objective.corpus.batch(objective.corpus.selection(0)[:8], 0)
    loss = model.net("recommend", batch)["recommend"]
    items = batch.tokens.flatten()[batch.item_index] - model.net.backbone.n_text_tokens - dataset.n_users
    shown = torch.zeros(8, dataset.n_items).index_put((batch.item_rows, items), torch.tensor(1.0))
    logits = 3.0 * shown @ torch.from_numpy(model.net.linear.matrix.toarray())
    logits[batch.excluded.rows, batch.excluded.items] = -torch.inf
    expected = -logits.log_softmax(1)[batch.target_rows, batch.target_items].sum()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(loss, [model.net.linear.weight])
    assert slope.item() != 0


def test_a_sampled_softmax_has_no_linear_path() -> None:
    with pytest.raises(ValueError, match="`linear=ease` needs the softmax over all items"):
        CLLM4RecConfig(linear="ease", sampled=100)


def test_without_validation_events_there_is_no_linear_path() -> None:
    """Its settings are those of EASE, which are no settings of CLLM4Rec."""
    model = CLLM4Rec(CLLM4RecConfig(linear="ease"))
    message = refused(model.check, taste_dataset(split="none"))
    assert message.startswith("`linear=ease` chooses the settings of EASE on validation events and there are")
    assert message.endswith("leave `linear` out, or prepare with a split")


def test_the_path_that_the_data_has() -> None:
    dataset, config = taste_dataset(), CLLM4RecConfig()
    assert config.linear == "auto"
    path = model_of_path(config, dataset)
    assert path.config.text_prior
    assert not model_of_path(CLLM4RecConfig(item_text="none"), dataset).config.text_prior
    events = replace(dataset.interactions, reviews=None)
    without_texts = replace(dataset, interactions=events, items=dataset.items.select("item_id"))
    assert not model_of_path(config, without_texts).config.text_prior


def test_when_there_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config = taste_dataset(), CLLM4RecConfig()
    assert path_model(config, taste_dataset(split="none")) is None, "nothing chooses its settings"
    assert path_model(CLLM4RecConfig(sampled=100), dataset) is None
    assert path_model(CLLM4RecConfig(order="time"), dataset) is None
    assert path_model(CLLM4RecConfig(linear="none"), dataset) is None
    assert model_of_path(CLLM4RecConfig(order="time", linear="ease"), dataset) is not None
    assert dataset.n_items < MOST_ITEMS
    monkeypatch.setattr(linear_path, "MOST_ITEMS", dataset.n_items - 1)
    assert path_model(config, dataset) is None
    assert model_of_path(CLLM4RecConfig(linear="ease"), dataset) is not None, "it was asked for"


def test_without_validation_events_a_model_is_built_without_a_path() -> None:
    model = CLLM4Rec().build(taste_dataset(split="none"))
    assert model.net.linear is None
