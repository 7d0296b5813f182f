"""Protocol A: of each user's events, at random, 10 % are test and 10 % validation.

The events are ordered by user, then position (time where there is none), then row. Users ascend by number if
all ids are whole numbers, else as text. One generator, `numpy.random.default_rng(seed)`, draws a permutation
for each user in turn.
"""

import hashlib

import numpy as np
import polars as pl

from cllm4rec.data.filters import first_of_repeats, keep_k_core

PAIR = ("user_id", "item_id")


def ordered_events(events: pl.DataFrame) -> pl.DataFrame:
    """The events by user, position or time, and row; of repeats of a user and an item the first.

    Args:
        events: `user_id` and `item_id` as text, and `position` or `timestamp`.
    """
    user = pl.col("user_id")
    if events.select(user.str.contains(r"^\d+$").all()).item():
        user = user.cast(pl.Int64)
    order = "position" if "position" in events.columns else "timestamp"
    return first_of_repeats(events).sort(user, order, nulls_last=False, maintain_order=True)


def liked_core(events: pl.DataFrame, min_rating: float, k: int) -> pl.DataFrame:
    """The events rated `min_rating` or more, of users and items that have k of them."""
    return keep_k_core(events.filter(pl.col("rating") >= min_rating), k)


def split_parts(events: pl.DataFrame, seed: int) -> pl.Series:
    """Part of each event: t train, v validation, e test.

    Args:
        events: all that are split, in the order of `ordered_events`.
        seed: of the split, which names the column.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for n in events["user_id"].rle().struct.field("len"):
        permutation, n_held_out = generator.permutation(n), max(1, round(0.1 * n))
        user_parts = np.full(n, "t")
        if n >= 3:
            user_parts[permutation[:n_held_out]] = "e"
            user_parts[permutation[n_held_out : 2 * n_held_out]] = "v"
        parts.append(user_parts)
    return pl.Series(split_column(seed), np.concatenate(parts))


def split_column(seed: int) -> str:
    """Name of the column of a seed's parts."""
    return f"seed_{seed}"


def split_hash(split: pl.DataFrame, seed: int) -> str:
    """SHA-256 of the rows user_id, item_id and part: separated by tabs, sorted as text, in UTF-8."""
    rows = split.select(*PAIR, split_column(seed)).sort(PAIR)
    text = rows.write_csv(separator="\t", include_header=False, quote_style="never")
    return hashlib.sha256(text.encode()).hexdigest()
