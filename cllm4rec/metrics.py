"""Ranking metrics: functions of the ranks of held-out items, one value per user."""

from collections.abc import Callable
from functools import partial

import numpy as np


def recall(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Hits in the top k / min(k, n): 1 is always within reach.

    Args:
        ranks: (n,) of the held-out items of some users, those of a user side by side.
        starts: (B,) where each user's begin; everyone has some.

    Returns:
        A value a user, float64 (B,); so do the other metrics.
    """
    return np.add.reduceat((ranks < k).astype(np.float64), starts) / np.minimum(
        k, np.diff(starts, append=len(ranks))
    )


def ndcg(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Discounted cumulative gain at k with binary relevance over that of the best ranking (Järvelin and Kekäläinen)."""
    gains = np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)
    best = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))[np.minimum(k, np.diff(starts, append=len(ranks))) - 1]
    return np.add.reduceat(gains, starts) / best


def hit_rate(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """1 if any held-out item is in the top k, else 0."""
    return np.maximum.reduceat((ranks < k).astype(np.float64), starts)


def mrr(ranks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Reciprocal of the place of the best held-out item, over the whole catalogue."""
    return 1.0 / (np.minimum.reduceat(ranks, starts) + 1.0)


PER_USER: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "recall@20": partial(recall, k=20),
    "recall@40": partial(recall, k=40),
    "ndcg@100": partial(ndcg, k=100),
    "hit_rate@10": partial(hit_rate, k=10),
    "ndcg@10": partial(ndcg, k=10),
    "mrr": mrr,
}
