"""Exact top-k lists of many users, without all scores in memory."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ITEMS_PER_CHUNK = 64  # neighbouring items of which the highest score is looked at first
LOWEST_SCORE = torch.finfo(torch.float32).min  # only -inf, which masks an item, is lower
DIVERGED = "the scores hold NaN: the model has diverged; train it again with a lower learning rate"


@dataclass(frozen=True)
class Ranking:
    """Top-k lists of a batch of users.

    Attributes:
        users: user numbers (B,).
        items: item numbers (B, min(k, n_items)), best first; -1 after the last item that is not masked.
        scores: of `items`, same shape; -inf where there is no item.
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class TopK:
    """The k best items of B users, updated with one block of scores after another.

    Equal scores rank by `tie_order`, lower first, whichever block they are in; -inf is never taken.
    Most items cost no more than the maximum over their chunk: only chunks whose highest score reaches the
    k-th best so far are searched.

    Attributes:
        items: int64 (B, k), best first, -1 where the scores ran out.
        scores: float32 (B, k), -inf there.
    """

    def __init__(self, n_users: int, k: int, tie_order: Tensor) -> None:
        """tie_order: int64 (n_items,), distinct."""
        self.tie_order = tie_order
        self.scores = torch.full((n_users, k), -torch.inf, device=tie_order.device)
        self.items = torch.full((n_users, k), -1, dtype=torch.int64, device=tie_order.device)

    def offer(self, scores: Tensor, first: int = 0) -> None:
        """Update with scores (B, W) of the items first .. first + W - 1.

        Raises:
            ValueError: a score is NaN.
        """
        width = scores.shape[1]
        whole = width // ITEMS_PER_CHUNK * ITEMS_PER_CHUNK
        if whole:
            self._offer(scores[:, :whole], first)
        if whole < width:
            rest = functional.pad(scores[:, whole:], (0, whole + ITEMS_PER_CHUNK - width), value=-torch.inf)
            self._offer(rest, first + whole)

    def _offer(self, scores: Tensor, first: int) -> None:
        """`offer` for a multiple of `ITEMS_PER_CHUNK` items."""
        n_users, width, k = len(scores), scores.shape[1], self.items.shape[1]
        chunks = scores.unflatten(1, (-1, ITEMS_PER_CHUNK))  # (B, C, ITEMS_PER_CHUNK)
        highest = chunks.amax(2)  # (B, C); NaN where the chunk has one
        if bool(highest.isnan().any()):
            raise ValueError(DIVERGED)
        # (B,) a score below the bound cannot be among the k best
        bound = self.scores[:, -1].clamp(min=LOWEST_SCORE)
        reaches = highest >= bound[:, None]  # (B, C)
        if int(reaches.sum()) > k * n_users and k <= width:
            # The k-th highest of any subset of the scores is a bound too: of the chunk maxima, if enough.
            kth = (highest if k < highest.shape[1] else scores).topk(k, dim=1).values[:, -1]  # (B,)
            bound = torch.maximum(bound, kth)
            reaches = highest >= bound[:, None]
        user, chunk = reaches.nonzero(as_tuple=True)  # (N,) chunks to search, users ascending
        searched = chunks[user, chunk]  # (N, ITEMS_PER_CHUNK)
        row, column = (searched >= bound[user, None]).nonzero(
            as_tuple=True
        )  # (H,) scores that reach the bound
        if len(row):
            items = first + chunk[row] * ITEMS_PER_CHUNK + column  # (H,)
            self._take(user[row], searched[row, column], items)

    def _take(self, user: Tensor, scores: Tensor, items: Tensor) -> None:
        """Merge scores (H,) of items (H,) of users (H,), users ascending."""
        users, counts = torch.unique_consecutive(
            user, return_counts=True
        )  # (R,) users with a score, and how many
        row = torch.repeat_interleave(
            torch.arange(len(users), device=user.device), counts
        )  # (H,) in 0 .. R-1
        first_index = counts.cumsum(0) - counts  # (R,)
        column = (
            torch.arange(len(user), device=user.device) - first_index[row]
        )  # (H,) 0 .. counts - 1 in each row
        shape = (len(users), int(counts.max()))
        padded_scores, padded_items = self.scores.new_full(shape, -torch.inf), self.items.new_full(shape, -1)
        padded_scores[row, column], padded_items[row, column] = scores.to(torch.float32), items
        self._merge(users, padded_scores, padded_items)

    def _merge(self, users: Tensor, scores: Tensor, items: Tensor) -> None:
        """Merge scores and items (R, n), padded with -inf and -1, into the lists of users (R,)."""
        k = self.items.shape[1]
        scores = torch.cat([self.scores[users], scores], dim=1)  # (R, k + n)
        items = torch.cat([self.items[users], items], dim=1)  # (R, k + n)
        # Sort by tie order, padding last, then stably by score.
        ties = self.tie_order[items.clamp(min=0)].masked_fill(items < 0, len(self.tie_order))
        order = ties.argsort(dim=1)
        scores, items = scores.gather(1, order), items.gather(1, order)
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]  # (R, k)
        self.scores[users], self.items[users] = scores.gather(1, best), items.gather(1, best)
