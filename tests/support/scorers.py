"""Systems whose scores are given."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender


class Scorer(Recommender):
    """A system with the scores of a function; nothing is learned.

    Attributes:
        asked: users and input events of each call.
    """

    name = "scorer"

    def __init__(self, dataset: Dataset, scores: Callable[[np.ndarray, Dataset], np.ndarray]) -> None:
        """`scores` gives the scores (B, n_items) of users (B,) with the histories in a dataset."""
        self.scores = scores
        self.asked: list[tuple[np.ndarray, Dataset]] = []
        self._learn_ids(dataset)

    def fit(self, *arguments: Any, **settings: Any) -> Self:
        return self

    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        self.asked.append((users, seen))
        return np.array(self.scores(users, seen), dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        pass


def fixed_scores(dataset: Dataset, scores: np.ndarray) -> Scorer:
    """A system with the scores (n_users, n_items) of the users of a dataset."""
    return Scorer(dataset, lambda users, seen: scores[users])
