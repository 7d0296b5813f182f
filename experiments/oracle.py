"""Scores by the probabilities that generated a synthetic world: the upper bound of every system."""

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import TasteWorld


class Oracle:
    """Ranks items by the log-probability with which the user takes them."""

    name = "oracle"

    def __init__(self, world: TasteWorld) -> None:
        self.world = world
        self.user_row = {name: row for row, name in enumerate(world.user_ids)}
        self.item_column = {name: column for column, name in enumerate(world.item_ids)}

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Log-probabilities, float64 (B, n_items)."""
        rows = [self.user_row[name] for name in seen.user_ids.names(users).to_list()]
        columns = [self.item_column[name] for name in seen.item_ids.ids.to_list()]
        return self.world.preference[np.ix_(rows, columns)]
