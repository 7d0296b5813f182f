"""Ranking metrics: functions from the ranks of held-out items to one value per user.

To add a metric, write a function of `ranks` and `starts` and add it to `PER_USER` under the name to print,
with its k: `"recall@5": partial(recall, k=5)`. `measure`, and so the command `evaluate`, reads that table.
"""

from collections.abc import Callable
from functools import partial

import numpy as np


def recall(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Hits in the top k / min(k, number of held-out items): at most 1 for every user.

    Args:
        ranks: int64 (n,), 0 is best: ranks of the held-out items of B users, those of a user adjacent.
        starts: int64 (B,), index in `ranks` of each user's first item; every user has at least one.
        k: length of the list.

    Returns:
        One value per user, float64 (B,). The other metrics have the same arguments and result.
    """
    hits = np.add.reduceat((ranks < k).astype(np.float64), starts)
    return hits / np.minimum(k, np.diff(starts, append=len(ranks)))


def ndcg(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain at k with binary relevance (Järvelin and Kekäläinen, 2002)."""
    gains = np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))  # (k,) gain of 1 .. k hits at the top
    n_relevant = np.minimum(k, np.diff(starts, append=len(ranks)))
    return np.add.reduceat(gains, starts) / ideal[n_relevant - 1]


def hit_rate(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """1 if any held-out item is in the top k, else 0."""
    return np.maximum.reduceat((ranks < k).astype(np.float64), starts)


def mrr(ranks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Reciprocal rank, from 1, of the best held-out item in the whole catalogue."""
    return 1.0 / (np.minimum.reduceat(ranks, starts) + 1.0)


PER_USER: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "recall@20": partial(recall, k=20),
    "recall@40": partial(recall, k=40),
    "ndcg@100": partial(ndcg, k=100),
    "hit_rate@10": partial(hit_rate, k=10),
    "ndcg@10": partial(ndcg, k=10),
    "mrr": mrr,
}
