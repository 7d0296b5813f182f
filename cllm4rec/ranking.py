"""Exact top-k lists of many users, without all scores in memory."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CHUNK_SIZES = (64, 32, 16, 8)  # neighbouring items of which the highest score is looked at first
MERGED_WHOLE = 1 << 13  # up to so many scores, sorting all is faster than searching chunks
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

    def __repr__(self) -> str:
        return f"Ranking: users {self.users.shape}, items and scores {self.items.shape}"


class TopK:
    """The k best items of B users, updated with one block of scores after another.

    Equal scores rank by `tie_order`, lower first, whichever block they are in; -inf is never taken.
    Most items cost no more than the maximum over their chunk: only chunks whose highest score reaches the
    k-th best so far are searched. A user with many equal scores there is ranked over the whole block.

    Attributes:
        items: int64 (B, k), best first, -1 where the scores ran out.
        scores: float32 (B, k), -inf there.
    """

    def __init__(self, n_users: int, k: int, tie_order: Tensor) -> None:
        """tie_order: int64 (n_items,), distinct."""
        self.tie_order = tie_order
        self.scores = torch.full((n_users, k), -torch.inf, device=tie_order.device)
        self.items = torch.full((n_users, k), -1, dtype=torch.int64, device=tie_order.device)
        self._is_empty = True  # no item was taken yet

    def offer(self, scores: Tensor, first: int = 0) -> None:
        """Update with scores (B, W) of the items first .. first + W - 1.

        Raises:
            ValueError: a score is NaN.
        """
        scores, width, k = scores.to(torch.float32), scores.shape[1], self.items.shape[1]
        if scores.numel() <= MERGED_WHOLE:
            if bool(scores.isnan().any()):
                raise ValueError(DIVERGED)
            if self._is_empty and k <= width:
                self._take_all(scores, first)
            else:
                self._merge_all(torch.arange(len(scores), device=scores.device), scores, first)
            return
        # The chunk maxima are to bound the k-th best score, so there have to be enough of them.
        chunk = next((size for size in CHUNK_SIZES if width // size >= 2 * k), CHUNK_SIZES[-1])
        whole = width // chunk * chunk
        if whole:
            self._offer(scores[:, :whole], first, chunk)
        if whole < width:
            rest = functional.pad(scores[:, whole:], (0, whole + chunk - width), value=-torch.inf)
            self._offer(rest, first + whole, chunk)

    def _offer(self, scores: Tensor, first: int, chunk: int) -> None:
        """`offer` for a multiple of `chunk` items."""
        n_users, width, k = len(scores), scores.shape[1], self.items.shape[1]
        chunks = scores.unflatten(1, (-1, chunk))  # (B, C, chunk)
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
        user, number = reaches.nonzero(as_tuple=True)  # (N,) chunks to search, users ascending
        searched = chunks[user, number]  # (N, chunk)
        hits = searched >= bound[user, None]  # (N, chunk) scores that reach the bound
        most = max(width // 4, 2 * k)
        if int(hits.sum()) > most:
            n_hits = torch.zeros(n_users, dtype=torch.int64, device=hits.device)
            tied = n_hits.index_add(0, user, hits.sum(1)) > most  # (B,) too many hits to sort them out
            self._merge_all(tied.nonzero().squeeze(1), scores, first)
            hits &= ~tied[user, None]
        row, column = hits.nonzero(as_tuple=True)  # (H,)
        if len(row):
            self._take(user[row], searched[row, column], first + number[row] * chunk + column)

    def _take_all(self, scores: Tensor, first: int) -> None:
        """The best of scores (B, W), k or more, where no item was taken yet."""
        keys = _ordered(scores) - self.tie_order[first : first + scores.shape[1]]
        best = keys.topk(self.items.shape[1], dim=1).indices  # (B, k)
        self.scores = scores.gather(1, best)
        self.items = (best + first).masked_fill_(self.scores == -torch.inf, -1)
        self._is_empty = False

    def _merge_all(self, users: Tensor, scores: Tensor, first: int) -> None:
        """Merge all scores (B, W) of users (R,)."""
        scores = scores[users]  # (R, W)
        items = torch.arange(first, first + scores.shape[1], device=users.device).expand(scores.shape)
        self._merge(users, scores, items.masked_fill(scores == -torch.inf, -1))

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
        padded_scores[row, column], padded_items[row, column] = scores, items
        self._merge(users, padded_scores, padded_items)

    def _merge(self, users: Tensor, scores: Tensor, items: Tensor) -> None:
        """Merge scores and items (R, n) into the lists of users (R,); items of score -inf are -1."""
        self._is_empty = False
        scores = torch.cat([self.scores[users], scores], dim=1)  # (R, k + n)
        items = torch.cat([self.items[users], items], dim=1)  # (R, k + n)
        keys = _ordered(scores) - self.tie_order[items.clamp(min=0)]
        best = keys.topk(self.items.shape[1], dim=1).indices  # (R, k)
        self.scores[users], self.items[users] = scores.gather(1, best), items.gather(1, best)


def list_of_scores(scores: np.ndarray, tie_order: np.ndarray, k: int) -> Ranking:
    """The list of one user, number 0.

    Args:
        scores: float32 (n_items,); -inf for items that are left out.
        tie_order: int64 (n_items,), as `TopK` takes it.
        k: maximum length of the list.
    """
    best = TopK(1, min(k, len(scores)), torch.from_numpy(tie_order))
    best.offer(torch.from_numpy(scores)[None])
    return Ranking(np.zeros(1, dtype=np.int64), best.items.numpy(), best.scores.numpy())


def _ordered(scores: Tensor) -> Tensor:
    """Whole numbers in the order of float32 scores, int64, multiples of 2**32; equal for 0 and -0."""
    bits = (scores + 0.0).view(torch.int32)
    # The bits of negative numbers ascend as the numbers descend.
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64) << 32
