"""Which items the softmax of a step is over, where it is not over all."""

import numpy as np

from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix

POWER = 0.75  # of how often an item occurs: rarer ones are drawn more often than they occur (Mikolov et al., 2013)


class ItemSampler:
    """Draws items by how often they occur in training, and knows with which probability each one is in a sample."""

    def __init__(self, train: Interactions, n_draws: int, *key: int) -> None:
        """n_draws: with replacement, so that a sample holds as many items at most. key: of all draws."""
        weights = (np.bincount(train.items, minlength=train.n_items) + 1.0) ** POWER
        self.n_draws, self.key, self._until = n_draws, key, np.cumsum(weights / weights.sum())

    def draw(self, epoch: int, step: int) -> np.ndarray:
        """The items of a step, ascending, each once: the same for all processes and micro-batches."""
        generator = np.random.default_rng(int(mix(*self.key, epoch, step)[0]))
        found = np.searchsorted(self._until, generator.random(self.n_draws), side="right")
        return np.unique(np.minimum(found, len(self._until) - 1))

    def log_inclusion(self, items: np.ndarray) -> np.ndarray:
        """log of the probability that a sample holds each of some items, float32."""
        share = self._until[items] - np.where(items > 0, self._until[items - 1], 0.0)
        return np.log(-np.expm1(self.n_draws * np.log1p(-share))).astype(np.float32)
