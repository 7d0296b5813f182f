"""EASE: a linear item-item model with a zero diagonal, in closed form."""

import numpy as np
import scipy.linalg

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.description import checked_array
from cllm4rec.models.one_stage import DECAY_GRID, OneStageRecommender, weighted_history


class EASE(OneStageRecommender):
    """Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019.

    The scores of a history x are x B, with B = I - P diag(1 / diag P) and P = (X^T X + lambda I)^-1. Memory:
    n_items^2 floats.
    """

    name = "ease"
    config_class = EASEConfig
    config: EASEConfig
    scoring_grid = DECAY_GRID
    grid = tuple({"regularization": value} for value in (20.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0))

    def _fit(self, train: Dataset, settings: EASEConfig) -> None:
        matrix = train.interactions.matrix
        gram = (matrix.T @ matrix).toarray().astype(np.float64)  # (n_items, n_items)
        gram[np.diag_indices_from(gram)] += settings.regularization
        inverse = scipy.linalg.inv(gram, overwrite_a=True, assume_a="pos")
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        self.weights = weights.astype(np.float32)  # (n_items, n_items)

    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        return np.asarray(weighted_history(users, seen, self.config) @ self.weights, dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.weights = checked_array(arrays, "weights", (len(self.item_ids),) * 2, np.float32)
