"""Lists that follow a wish in words: its scores, added to those of a history."""

import numpy as np
import torch
from torch import Tensor

# Weight of BM25, relative to scores in units of their standard deviation over the items: chosen on validation
# events of Musical Instruments, split seed 0 (experiments.wishes).
WEIGHT = 0.8


def with_wish(scores: Tensor, wish: np.ndarray) -> Tensor:
    """Scores (B, n_items) in units of their standard deviation, plus those of a wish times WEIGHT.

    Args:
        scores: of users.
        wish: float32 (n_items,), BM25 of the wish.

    Raises:
        ValueError: the wish has another shape, or a value that is not finite.
    """
    if np.shape(wish) != scores.shape[1:] or not np.isfinite(wish).all():
        raise ValueError(f"`wish` is an array {np.shape(wish)}: expected {scores.shape[1]} finite scores")
    centred = scores - scores.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    standardised = centred / torch.where(deviation > 0, deviation, 1.0)
    return standardised + WEIGHT * torch.from_numpy(wish).to(scores.device)
