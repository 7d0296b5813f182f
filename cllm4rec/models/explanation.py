"""Why an item is recommended: what its score would lose without each item of the history, and each word."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import IdMap
from cllm4rec.data.interactions import Interactions

SCORES_AT_ONCE = 1 << 24  # of histories without one of their items: 64 MiB


class Scorer(Protocol):
    """A system as explanations need it; the methods are those of `Recommender`."""

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores of all items (B, n_items)."""
        ...

    def _trained_users(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Numbers of users in the training set (B,); -1 if new."""
        ...

    def _word_effects(self, item: int, user: int, seen: Dataset) -> tuple[list[str], np.ndarray]:
        """Words of an item, and what a user's score would lose without each."""
        ...


@dataclass(frozen=True)
class Explanation:
    """Why a user gets an item.

    Attributes:
        score: of the item.
        rank: of the item among those that are not in the history, from 1.
        items: of the history, by what the score would lose without them: `item_id`, `effect`, and `title`
            where the items have titles. The effect of the only item of a history is null if the user is new:
            without it there is nothing to score from.
        words: of the item's text, likewise: `word`, `effect`. Empty if the system learns no words. Effects on
            the linear path of CLLM4Rec and on an encoder's reading of the text are not counted.
    """

    score: float
    rank: int
    items: pl.DataFrame
    words: pl.DataFrame


def explained(model: Scorer, item: int, user: int, seen: Dataset) -> Explanation:
    """Score an item from a history, from the history without each of its items, and without each word.

    Args:
        model: any system.
        item: number of an item that is not in the history.
        user: number of a user with a history in `seen`.
        seen: the events.

    Raises:
        ValueError: the item is in the history, or the user has none.
    """
    history = seen.interactions.history(user)
    if not len(history):
        raise ValueError(f"user {seen.user_ids.names(np.array([user]))[0]!r} has no history to explain from")
    if item in history:
        name = seen.item_ids.names(np.array([item]))[0]
        raise ValueError(f"`item`: {name!r} is in the history: ask about an item that is not")
    without = _scores_without_each(model, item, user, seen)
    scores = model.score(np.array([user]), seen)[0]
    others = np.delete(np.arange(len(scores)), history)
    before = scores[others] > scores[item]
    tied = (scores[others] == scores[item]) & (seen.tie_order[others] < seen.tie_order[item])
    items = pl.DataFrame(
        {
            "item_id": seen.item_ids.names(history),
            "effect": pl.Series(float(scores[item]) - without).fill_nan(None),
        }
    )
    if "title" in seen.items.columns:
        items = items.with_columns(title=seen.items["title"].gather(history))
    words, effects = model._word_effects(item, user, seen)
    return Explanation(
        float(scores[item]),
        int((before | tied).sum()) + 1,
        _by_effect(items),
        _by_effect(pl.DataFrame({"word": pl.Series(words, dtype=pl.String), "effect": effects})),
    )


def _by_effect(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of a table with a column `effect`, the largest first."""
    return table.sort("effect", descending=True, nulls_last=True, maintain_order=True)


def _scores_without_each(model: Scorer, item: int, user: int, seen: Dataset) -> np.ndarray:
    """Scores of an item from the history of a user without each of its items, (n,); NaN if none is left."""
    history = seen.interactions.history(user)
    n = len(history)
    is_new = model._trained_users(np.array([user]), seen)[0] < 0
    if n == 1 and is_new:
        return np.full(1, np.nan)
    at_once = max(1, SCORES_AT_ONCE // (seen.n_items + n))
    scores = []
    for start in range(0, n, at_once):
        reduced = without_each_item(seen, user, range(start, min(start + at_once, n)))
        scores.append(model.score(np.arange(reduced.n_users), reduced)[:, item])
    return np.concatenate(scores).astype(np.float64)


def without_each_item(seen: Dataset, user: int, places: Sequence[int] | None = None) -> Dataset:
    """A dataset whose users all have the history of one user, each without one of its items.

    Args:
        seen: the events.
        user: a number of `seen`.
        places: of the items in the history; all if not given.
    """
    history = seen.interactions.history(user)
    left_out = np.arange(len(history)) if places is None else np.array(places, dtype=np.int64)
    n = len(left_out)
    rows, kept = np.nonzero(left_out[:, None] != np.arange(len(history)))
    events = Interactions(rows, history[kept], n, seen.n_items)
    ids = pl.Series("user_id", [seen.user_ids.ids[user]] * n, dtype=seen.user_ids.ids.dtype)
    users = seen.users[[user] * n]
    reduced = replace(seen, interactions=events, users=users, part=np.zeros(len(events), dtype=np.uint8))
    return reduced._with_id_maps(IdMap(ids), seen.item_ids)
