"""Candidate sets: the next item among items drawn at random."""

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.randomness import mix

DRAWS_PER_CANDIDATE = 40  # random items drawn per candidate; nearly always enough to find n distinct ones


def title_groups(items: pl.DataFrame) -> np.ndarray:
    """int64 (n_items,): equal for items of equal title, which their titles cannot tell apart.

    Letter case and surrounding spaces are ignored. An item without a title is a group of its own.
    """
    if "title" not in items.columns:
        return np.arange(len(items), dtype=np.int64)
    title = pl.col("title").fill_null("").str.normalize("NFC").str.strip_chars().str.to_lowercase()
    numbered = items.select(title, number=pl.int_range(pl.len(), dtype=pl.Int64))
    lowest = pl.col("number").min().over("title")
    groups = numbered.select(pl.when(pl.col("title") == "").then("number").otherwise(lowest))
    return groups.to_series().to_numpy()


def check_candidates(n: int, train: Dataset) -> None:
    """Check that a prompt about any user can name `n` items of different titles; 0: none are named.

    Raises:
        ValueError: too few titles are not in the longest history.
    """
    if n == 0:
        return
    groups, events = title_groups(train.items), train.interactions
    n_groups = int(groups.max(initial=0)) + 1
    pairs = np.unique(events.users * n_groups + groups[events.items])  # distinct users and titles
    most_titles = np.bincount(pairs // n_groups).max(initial=0)  # of a history
    n_left = len(np.unique(groups)) - most_titles
    if n > n_left + 1:
        raise ValueError(
            f"`candidates` {n}: of {train.n_items:,} items only {n_left:,} titles are not in the longest "
            "history: name fewer"
        )


def draw_candidates(target: int, excluded: np.ndarray, groups: np.ndarray, n: int, *key: int) -> np.ndarray:
    """The target and n - 1 other items at random, in random order, int64 (n,).

    Args:
        target: the next item.
        excluded: items that are no candidates: the user's known items.
        groups: `title_groups`; no two candidates share one.
        n: number of candidates.
        key: whole numbers that the draw depends on, apart from the target.

    Raises:
        ValueError: too few items are left to draw from.
    """
    generator = np.random.default_rng(int(mix(*key, target)[0]))
    used_groups, candidates = {int(group) for group in groups[excluded]} | {int(groups[target])}, [target]
    draws = generator.integers(0, len(groups), DRAWS_PER_CANDIDATE * n)
    # If the draws do not suffice, go through all items in random order.
    for drawn in (draws, generator.permutation(len(groups))) if len(candidates) < n else ():
        for item in drawn.tolist():
            if len(candidates) < n and groups[item] not in used_groups:
                used_groups.add(int(groups[item]))
                candidates.append(item)
    if len(candidates) < n:
        raise ValueError(
            f"{n} candidates are asked for, and items of {len(candidates)} titles are left: ask for fewer"
        )
    return generator.permutation(np.array(candidates, dtype=np.int64))
