"""Systems that score by inner product: a vector a user, a vector an item."""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender

SCORES_AT_ONCE = 1 << 21  # numbers: blocks of scores stay near the processor


def score_blocks(states: Tensor, items: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Inner products of states (B, d) with items (n_items, d) in blocks (B, W), each with the number of its first item."""
    width = max(1, SCORES_AT_ONCE // max(1, len(states)))
    for first in range(0, len(items), width):
        yield first, states @ items[first : first + width].T


class InnerProductRecommender(Recommender):
    """Scores are states of users times vectors of items, so that the best items are found without all scores at once."""

    @abstractmethod
    def _vectors(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        """States of users (B, d), arguments as `_score` takes them, and the vectors of all items (n_items, d)."""

    @torch.no_grad()
    def _score(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> np.ndarray:
        states, items = self._vectors(users, known, seen)
        return (states.to(torch.float32) @ items.to(torch.float32).T).cpu().numpy()

    @torch.no_grad()
    def _blocks(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> Iterator[tuple[int, Tensor]]:
        states, items = self._vectors(users, known, seen)
        return score_blocks(states.to(torch.float32), items.to(torch.float32))
