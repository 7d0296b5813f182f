"""Scores by the probabilities that generated a synthetic world: the upper bound of every system."""

from typing import Any, Self

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import TasteWorld
from cllm4rec.models.base import Recommender


class Oracle(Recommender):
    """Ranks items by the log-probability with which the user takes them."""

    name = "oracle"

    def __init__(self, world: TasteWorld, dataset: Dataset) -> None:
        self.world = world
        self.user_row = {name: row for row, name in enumerate(world.user_ids)}
        self.item_column = {name: column for column, name in enumerate(world.item_ids)}
        self._learn_ids(dataset)

    def fit(self, *arguments: Any, **settings: Any) -> Self:
        """Nothing is learned."""
        return self

    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        rows = [self.user_row[name] for name in seen.user_ids.names(users).to_list()]
        columns = [self.item_column[name] for name in seen.item_ids.ids.to_list()]
        return self.world.preference[np.ix_(rows, columns)].astype(np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"preference": self.world.preference}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        raise NotImplementedError("an oracle is not loaded")
