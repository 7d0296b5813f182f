"""Systems that score by inner products of user states and item vectors."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender

SCORES_AT_ONCE = 1 << 21  # numbers of a block of scores: 8 MiB, which stays in the cache
SCORES_AT_ONCE_ON_GPU = 1 << 26  # 256 MiB: a GPU waits for the next small block
FEW_ENTRIES = 64  # up to so many events, adding rows is faster than a sparse product


def score_blocks(states: Tensor, items: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Inner products of states (B, d) and items (n_items, d): first item and scores (B, W) of each block."""
    at_once = SCORES_AT_ONCE_ON_GPU if states.is_cuda else SCORES_AT_ONCE
    width = max(1, at_once // max(1, len(states)))
    for first in range(0, len(items), width):
        yield first, states @ items[first : first + width].T


Vectors = dict[bytes, tuple[Tensor, Tensor]]  # batch of users -> user states and vectors of all items


class LinearScores:
    """Scores w x B of histories x, given out for some items at a time."""

    def __init__(
        self, histories: sp.csr_matrix, users: np.ndarray, weights: sp.csr_matrix, factor: float
    ) -> None:
        """Compute the scores.

        Args:
            histories: x of all users, (n_users, n_items).
            users: user numbers (B,).
            weights: B, (n_items, n_items), a column at most once in a row.
            factor: w.
        """
        n_entries = (histories.indptr[users + 1] - histories.indptr[users]).sum()
        few = max(n_entries, len(users)) <= FEW_ENTRIES
        self._few = _sums_of_rows(histories, users, weights) if few else None
        self._scores = None if few else sp.csr_matrix(histories[users] @ weights)
        self._factor = factor

    @cached_property
    def _columns(self) -> sp.csc_matrix:
        return sp.csc_matrix(self._scores)

    def block(self, items: slice) -> Tensor:
        """The scores of some items, float32 (B, items)."""
        if self._few is not None:
            return torch.from_numpy(self._few[:, items]) * self._factor
        assert self._scores is not None
        whole = items.start == 0 and items.stop >= self._scores.shape[1]
        part = self._scores if whole else self._columns[:, items]
        scores = np.asarray(part.toarray(), dtype=np.float32)
        return torch.from_numpy(scores) * self._factor


def _sums_of_rows(histories: sp.csr_matrix, users: np.ndarray, weights: sp.csr_matrix) -> np.ndarray:
    """Rows `users` of the product of two sparse matrices, float32 (B, n_items); row by row, for a few."""
    sums = np.zeros((len(users), weights.shape[1]), dtype=np.float32)
    for row, user in zip(sums, users, strict=True):
        entries = slice(histories.indptr[user], histories.indptr[user + 1])
        for item, value in zip(histories.indices[entries], histories.data[entries], strict=True):
            cells = slice(weights.indptr[item], weights.indptr[item + 1])
            row[weights.indices[cells]] += value * weights.data[cells]
    return sums


class InnerProductRecommender(Recommender):
    """Scores are inner products, so that the best items are found without all scores at once."""

    scores_in_blocks: ClassVar[bool] = True
    kept: Vectors | None = None  # within `keeping_vectors`

    @contextmanager
    def keeping_vectors(self, kept: Vectors | None = None) -> Iterator[None]:
        """Within the block, the network reads each batch of users only once.

        Neither its weights nor the users' events may change in the block.

        Args:
            kept: those of an earlier block with the same weights and events; new ones are added.
        """
        self.kept = {} if kept is None else kept
        try:
            yield
        finally:
            self.kept = None

    def _kept_vectors(
        self, users: np.ndarray, encode: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Vectors of users and of all items: within `keeping_vectors` those of before, else new ones."""
        if self.kept is None:
            return encode()
        key = users.tobytes()
        if key not in self.kept:
            states, items = encode()
            of_others = next(iter(self.kept.values()), (states, items))
            self.kept[key] = states, of_others[1]  # the vectors of the items are held once
        return self.kept[key]

    def _linear(self, users: np.ndarray, seen: Dataset) -> LinearScores | None:
        """Scores to be added to the inner products; None for none. Arguments as those of `_score`."""
        return None

    @abstractmethod
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        """User states (B, d) and the vectors of all items (n_items, d); arguments as those of `_score`."""

    def _words_of_item(self, item: int) -> tuple[list[str], Tensor]:
        """The words that an item's vector reads, and what it would lose without each of them (n_words, d)."""
        return [], torch.zeros(0, 1)

    def _word_effects(self, item: int, user: int, seen: Dataset) -> tuple[list[str], np.ndarray]:
        words, lost = self._words_of_item(item)
        if not words:
            return super()._word_effects(item, user, seen)
        users = np.array([user])
        states, _ = self._vectors(users, self._trained_users(users, seen), seen)  # (1, d)
        return words, (lost.to(states) @ states[0]).double().cpu().numpy()

    @torch.no_grad()
    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        states, items = self._vectors(users, trained_users, seen)
        scores, linear = states.to(torch.float32) @ items.to(torch.float32).T, self._linear(users, seen)
        if linear is not None:
            scores += linear.block(slice(0, len(items))).to(scores.device)
        return scores.cpu().numpy()

    def _blocks(
        self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset
    ) -> Iterator[tuple[int, Tensor]]:
        with torch.no_grad():
            states, items = (each.to(torch.float32) for each in self._vectors(users, trained_users, seen))
        linear = self._linear(users, seen)
        for first, scores in score_blocks(states.detach(), items.detach()):
            if linear is not None:
                scores += linear.block(slice(first, first + scores.shape[1])).to(scores.device)
            yield first, scores
