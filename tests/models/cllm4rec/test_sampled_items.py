"""Training CLLM4Rec with a sampled softmax."""

import numpy as np
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.skewed import N_ITEMS


def test_a_step_moves_the_items_that_it_read_and_no_others() -> None:
    world = taste_world(0, n_users=60, n_items=N_ITEMS)
    dataset = Dataset.from_frame(world.events, world.items, split="random")
    model = CLLM4Rec(CLLM4RecConfig(sampled=3, content_ratio=0.0))
    before = CLLM4Rec(model.config).build(dataset.train).net.collaborative.whole()
    model.build(dataset.train)
    for stage in model.stages:
        (objective,) = model.objectives(dataset.train, stage, TrainConfig())
        batch = objective.corpus.batch(np.arange(2), 0, 5)
        assert len(batch.sample.items) <= 3
        model.net.zero_grad()
        torch.stack(list(model.net(objective.name, batch).values())).sum().backward()
        items = model.net.collaborative.items.weight.grad.coalesce().indices()[0].tolist()
        read = (batch.ids - dataset.n_users)[batch.ids >= dataset.n_users]
        expected = {*read.tolist(), *batch.sample.items.tolist(), *batch.target_items.tolist()}
        assert set(items) == expected != set(range(N_ITEMS))
    trained = model.fit_stage(dataset, "pretrain", TrainConfig(epochs=3, batch_size=8))
    assert not torch.equal(trained.net.collaborative.whole(), before)
    assert trained.rank(np.arange(5), dataset.train, 4).items.shape == (5, 4)


def test_batches_of_one_step_share_its_sample() -> None:
    world = taste_world(0, n_users=60, n_items=N_ITEMS)
    dataset = Dataset.from_frame(world.events, world.items, split="random")
    model = CLLM4Rec(CLLM4RecConfig(sampled=8, content_ratio=0.0))
    model.build(dataset.train)
    corpus = model.objectives(dataset.train, "pretrain", TrainConfig())[0].corpus
    groups = [np.arange(3), np.arange(3, 9), np.arange(9, 12)]
    first, second, third = corpus.batches(groups, 1, [4, 4, 5])
    assert torch.equal(first.sample.items, second.sample.items)
    assert first.sample.items.tolist() != third.sample.items.tolist()
    assert torch.equal(first.sample.items, corpus.batch(np.arange(20, 22), 1, 4).sample.items)
