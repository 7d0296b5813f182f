"""Small autoencoders, and histories as dense vectors."""

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.history_sets import HistorySetBatch, HistorySets
from cllm4rec.models.autoencoders.base import AutoencoderRecommender
from cllm4rec.training.config import TrainConfig
from tests.support.systems import new_system
from tests.support.worlds import taste_dataset

N_ITEMS = taste_dataset().n_items
CONFIG = TrainConfig(epochs=4, batch_size=16, warmup_steps=5)


def autoencoder(name: str, **settings: object) -> AutoencoderRecommender:
    """An untrained system of small networks."""
    model = new_system(name, **settings)
    assert isinstance(model, AutoencoderRecommender)
    return model


def built(name: str, **settings: object) -> AutoencoderRecommender:
    """The same with a network with random weights."""
    return autoencoder(name, **settings).build(taste_dataset(), CONFIG)


def batch_of(model: AutoencoderRecommender, objective: int = 0, epoch: int = 0) -> HistorySetBatch:
    """A training batch of 30 users."""
    corpus = model.objectives(taste_dataset().train, "pretrain", CONFIG)[objective].corpus
    batch = corpus.batch(np.arange(30), epoch)
    assert isinstance(batch, HistorySetBatch)
    return batch


def dense(sets: HistorySets) -> Tensor:
    """Histories as binary vectors (B, n_items)."""
    vectors = torch.zeros(len(sets.lengths), N_ITEMS)
    vectors[sets.item_rows, sets.items] = 1.0
    return vectors
