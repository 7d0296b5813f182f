"""Sampled softmax: which items the softmax of a step is over."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cllm4rec.corpora.base import Tensors, as_tensor
from cllm4rec.data.audit import learns_from
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix

POWER = 0.75  # of an item's count: rare items are oversampled (Mikolov et al., 2013)


@dataclass(frozen=True, kw_only=True)
class ItemSample(Tensors):
    """The sample of items that the softmax of a step is over.

    Attributes:
        items: int64 (S,), item numbers, ascending.
        log_p: float32 (S,), log of the probability that a sample holds each of them.
        target_log_p: float32 (T,), the same of the batch's targets.
    """

    items: Tensor
    log_p: Tensor
    target_log_p: Tensor


class ItemSampler:
    """Samples items by their training counts, with known inclusion probabilities.

    Args:
        train: the training events.
        n_draws: draws with replacement, so that a sample has at most as many items.
        key: numbers that all draws depend on.
    """

    def __init__(self, train: Interactions, n_draws: int, *key: int) -> None:
        learns_from("the item sampler", train)
        weights = (np.bincount(train.items, minlength=train.n_items) + 1.0) ** POWER
        self.n_draws, self.key, self._cumulative = n_draws, key, np.cumsum(weights / weights.sum())

    def draw(self, epoch: int, step: int) -> np.ndarray:
        """The distinct items (S,) of a step, ascending: the same for all processes and micro-batches."""
        generator = np.random.default_rng(int(mix(*self.key, epoch, step)[0]))
        drawn = np.searchsorted(self._cumulative, generator.random(self.n_draws), side="right")
        return np.unique(np.minimum(drawn, len(self._cumulative) - 1))

    def log_inclusion(self, items: np.ndarray) -> np.ndarray:
        """Log of the probability that a sample holds each item (N,), float32."""
        share = self._cumulative[items] - np.where(items > 0, self._cumulative[items - 1], 0.0)
        return np.log(-np.expm1(self.n_draws * np.log1p(-share))).astype(np.float32)

    def sample(self, target_items: np.ndarray, epoch: int, step: int) -> ItemSample:
        """The sample of a step, for a batch with these targets (T,)."""
        items = self.draw(epoch, step)
        return ItemSample(
            items=as_tensor(items),
            log_p=as_tensor(self.log_inclusion(items)),
            target_log_p=as_tensor(self.log_inclusion(target_items)),
        )
