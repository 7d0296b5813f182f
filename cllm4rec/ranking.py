"""The k best items of many users, exact, without all scores at once."""

import numpy as np
import torch
from torch import Tensor

STRETCH = 64  # scores whose highest is looked at first
LOWEST = torch.finfo(torch.float32).min  # anything below is no score


class TopK:
    """The k best items of B users, while blocks of their scores pass by.

    Equal scores rank by `tie_order`, lower first, whichever block they come in; -inf is never taken. A block in which no score
    reaches a user's k-th best so far costs no more than looking for its highest one.

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
        highest = scores.amax(1)
        if bool(highest.isnan().any()):
            raise ValueError("the scores hold NaN: the model has diverged; train it again with a lower learning rate")
        rows = (highest >= self.scores[:, -1].clamp(min=LOWEST)).nonzero()[:, 0]
        if not len(rows):
            return
        scores = scores if len(rows) == len(scores) else scores[rows]
        least = torch.maximum(self.scores[rows, -1], self._floor(scores)).clamp(min=LOWEST)
        row, column = (scores >= least[:, None]).nonzero(as_tuple=True)  # ascending in row
        counts = torch.bincount(row, minlength=len(rows))
        place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        width = int(counts.max())
        found = torch.full((len(rows), width), -torch.inf, device=scores.device)
        items = torch.full((len(rows), width), -1, dtype=torch.int64, device=scores.device)
        found[row, place], items[row, place] = scores[row, column].to(torch.float32), column + first
        self._merge(rows, found, items)

    def _floor(self, scores: Tensor) -> Tensor:
        """A bound (B,) that at least k scores of each row reach: the k-th highest among the highest of stretches."""
        k, n = self.items.shape[1], scores.shape[1] // STRETCH
        if n < k:
            return scores.new_full((len(scores),), -torch.inf)
        highest = scores[:, : n * STRETCH].unflatten(1, (n, STRETCH)).amax(2)
        return highest.topk(k, dim=1).values[:, -1]

    def _merge(self, rows: Tensor, scores: Tensor, items: Tensor) -> None:
        """Keep the best of what rows hold and what was found for them, both (R, any)."""
        k = self.items.shape[1]
        scores, items = torch.cat([self.scores[rows], scores], dim=1), torch.cat([self.items[rows], items], dim=1)
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
