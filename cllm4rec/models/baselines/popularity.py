"""Popularity: the same list for everybody."""

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.config import PopularityConfig
from cllm4rec.models.description import checked_array
from cllm4rec.models.one_stage import OneStageRecommender


class Popularity(OneStageRecommender):
    """The score of an item is the number of its users in training."""

    name = "popularity"
    config_class = PopularityConfig

    def _fit(self, train: Dataset, settings: PopularityConfig) -> None:
        self.counts = np.asarray(train.interactions.matrix.sum(0), dtype=np.float32).ravel()  # (n_items,)

    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        return np.tile(self.counts, (len(users), 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"counts": self.counts}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.counts = checked_array(arrays, "counts", (len(self.item_ids),), np.float32)
