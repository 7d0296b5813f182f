"""Candidate sets: the one item that came next, among items drawn at random."""

import numpy as np
import polars as pl

from cllm4rec.data.randomness import mix


def title_groups(items: pl.DataFrame) -> np.ndarray:
    """int64 (n_items,): the same number for items that share a title, which words cannot tell apart.

    An item without a title shares it with nobody. Letter case and outer spaces make no difference.
    """
    if "title" not in items.columns:
        return np.arange(len(items), dtype=np.int64)
    title = pl.col("title").fill_null("").str.strip_chars().str.to_lowercase()
    first = items.select(title, number=pl.int_range(pl.len(), dtype=pl.Int64)).select(
        pl.when(pl.col("title") == "").then("number").otherwise(pl.col("number").min().over("title"))
    )
    return first.to_series().to_numpy()


def draw_candidates(target: int, known: np.ndarray, groups: np.ndarray, n: int, *key: int) -> np.ndarray:
    """The target and n - 1 other items at random, in random order, int64 (n,).

    Args:
        target: the item that came next.
        known: items that are no candidates: those the user is known to have taken.
        groups: `title_groups`; no two candidates share one.
        n: how many candidates.
        key: what the draw depends on, beside the target.

    Raises:
        ValueError: there are not so many items to choose from.
    """
    generator = np.random.default_rng(int(mix(*key, target)[0]))
    taken, chosen = {int(group) for group in groups[known]} | {int(groups[target])}, [target]
    draws = generator.integers(
        0, len(groups), 40 * n
    )  # nearly always enough; where they are not, all are gone through
    for more in (draws, generator.permutation(len(groups))) if len(chosen) < n else ():
        for item in more.tolist():
            if len(chosen) < n and groups[item] not in taken:
                taken.add(int(groups[item]))
                chosen.append(item)
    if len(chosen) < n:
        raise ValueError(
            f"{n} candidates are asked for, and items of {len(chosen)} titles are left: ask for fewer"
        )
    return generator.permutation(np.array(chosen, dtype=np.int64))
