"""Lists that follow a wish in words: scores of its words beside those of a history, or alone."""

import numpy as np
import torch
from torch import Tensor

from cllm4rec.ranking import Ranking, TopK

# Of BM25, beside scores in units of their standard deviation over the items: chosen on validation events of
# Musical Instruments, split seed 0 (experiments.wishes).
WEIGHT = 0.8


def with_wish(scores: Tensor, wish: np.ndarray) -> Tensor:
    """Scores (B, n_items) in units of their standard deviation, plus those of a wish times WEIGHT.

    Args:
        scores: of users.
        wish: float32 (n_items,), BM25 of the wish.
    """
    centred = scores - scores.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    standardised = centred / torch.where(deviation > 0, deviation, 1.0)
    return standardised + WEIGHT * torch.from_numpy(wish).to(scores.device)


def list_of_wish(wish: np.ndarray, tie_order: np.ndarray, k: int, excluded: np.ndarray) -> Ranking:
    """The list of a wish alone, of user 0. It holds items of a positive score.

    Args:
        wish: float32 (n_items,).
        tie_order: int64 (n_items,).
        k: maximum length of the list.
        excluded: bool (n_items,), items that are left out.
    """
    scores = torch.from_numpy(np.where(excluded | (wish <= 0), -np.inf, wish).astype(np.float32))
    best = TopK(1, min(k, len(wish)), torch.from_numpy(tie_order))
    best.offer(scores[None])
    return Ranking(np.zeros(1, dtype=np.int64), best.items.numpy(), best.scores.numpy())
