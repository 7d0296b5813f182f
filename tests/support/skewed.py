"""Interactions with items of very different popularity."""

import numpy as np

from cllm4rec.data.interactions import Interactions

N_ITEMS = 30


def skewed_interactions(n: int = 400) -> Interactions:
    """Item j occurs about 1 / (j + 1) as often as item 0."""
    share = 1 / (1 + np.arange(N_ITEMS))
    items = np.random.default_rng(0).choice(N_ITEMS, n, p=share / share.sum())
    return Interactions(np.zeros(n, dtype=np.int64), items, 1, N_ITEMS)
