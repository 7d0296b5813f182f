"""The k best items of many users, exact, without all scores at once."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

STRETCH = 64  # neighbouring items whose highest score is looked at first
LOWEST = torch.finfo(torch.float32).min  # anything below is no score


class TopK:
    """The k best items of B users, while blocks of their scores pass by.

    Equal scores rank by `tie_order`, lower first, whichever block they come in; -inf is never taken. What does not reach the
    k-th best so far of a user costs no more than looking for the highest score of each stretch of neighbouring items.

    Attributes:
        items: int64 (B, k), best first, -1 where the scores ran out.
        scores: float32 (B, k), -inf there.
    """

    def __init__(self, n_users: int, k: int, tie_order: Tensor) -> None:
        """tie_order: int64 (n_items,), a different number each."""
        self.tie_order = tie_order
        self.scores = torch.full((n_users, k), -torch.inf, device=tie_order.device)
        self.items = torch.full((n_users, k), -1, dtype=torch.int64, device=tie_order.device)

    def offer(self, scores: Tensor, first: int = 0) -> None:
        """Scores (B, W) of the items first .. first + W.

        Raises:
            ValueError: one of them is NaN.
        """
        whole = scores.shape[1] // STRETCH * STRETCH
        if whole:
            self._offer(scores[:, :whole], first)
        if whole < scores.shape[1]:
            rest = functional.pad(scores[:, whole:], (0, whole + STRETCH - scores.shape[1]), value=-torch.inf)
            self._offer(rest, first + whole)

    def _offer(self, scores: Tensor, first: int) -> None:
        """The same for whole stretches: only stretches whose highest score is among the best are looked at closer."""
        k, stretches = self.items.shape[1], scores.unflatten(1, (-1, STRETCH))
        highest = stretches.amax(2)  # (B, stretches), and NaN where one of them is
        if bool(highest.isnan().any()):
            raise ValueError(
                "the scores hold NaN: the model has diverged; train it again with a lower learning rate"
            )
        least = self.scores[:, -1].clamp(min=LOWEST)
        hit = highest >= least[:, None]
        if (
            int(hit.sum()) > k * len(scores) and k <= scores.shape[1]
        ):  # the k-th best of some of the scores is a bound too
            bound = (highest if k < highest.shape[1] else scores).topk(k, dim=1).values[:, -1]
            least = torch.maximum(least, bound)
            hit = highest >= least[:, None]
        row, stretch = hit.nonzero(as_tuple=True)  # ascending in row
        near = stretches[row, stretch]  # (hits, STRETCH)
        hit_of, place = (near >= least[row, None]).nonzero(as_tuple=True)
        if len(hit_of):
            self._take(row[hit_of], near[hit_of, place], first + stretch[hit_of] * STRETCH + place)

    def _take(self, row: Tensor, scores: Tensor, items: Tensor) -> None:
        """Take in what was found: flat, ascending in row."""
        rows, counts = torch.unique_consecutive(row, return_counts=True)
        number = torch.repeat_interleave(torch.arange(len(rows), device=row.device), counts)
        place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[number]
        shape = (len(rows), int(counts.max()))
        found, of = self.scores.new_full(shape, -torch.inf), self.items.new_full(shape, -1)
        found[number, place], of[number, place] = scores.to(torch.float32), items
        self._merge(rows, found, of)

    def _merge(self, rows: Tensor, scores: Tensor, items: Tensor) -> None:
        """Keep the best of what rows hold and what was found for them, both (R, any)."""
        k = self.items.shape[1]
        scores, items = (
            torch.cat([self.scores[rows], scores], dim=1),
            torch.cat([self.items[rows], items], dim=1),
        )
        order = self.tie_order[items.clamp(min=0)].masked_fill(items < 0, len(self.tie_order)).argsort(dim=1)
        scores, items = scores.gather(1, order), items.gather(1, order)
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        self.scores[rows], self.items[rows] = scores.gather(1, best), items.gather(1, best)


def top_k(scores: np.ndarray, k: int, tie_order: np.ndarray) -> np.ndarray:
    """The k best columns of each row of scores (B, n_items), best first, int64 (B, min(k, n_items)): `TopK` of one block."""
    best = TopK(len(scores), min(k, scores.shape[1]), torch.from_numpy(tie_order))
    if len(scores):
        best.offer(torch.from_numpy(scores))
    return best.items.numpy()
