"""EASE: a linear item-item model with a zero diagonal, in closed form; its prior may come from texts."""

from pathlib import Path
from typing import Self

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.loading import as_dataset
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.item_inverse import blocks_of_rows, empty_item_matrix, item_inverse
from cllm4rec.models.baselines.text_prior import TextPrior
from cllm4rec.models.description import checked_array
from cllm4rec.models.one_stage import DECAY_GRID, Grid, OneStageRecommender, weighted_history
from cllm4rec.models.readings.item_texts import ItemVectors
from cllm4rec.models.readings.text_vectors import text_vectors

PENALTIES = (20.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
GRIDS = (Grid(tuple({"regularization": value} for value in PENALTIES), scoring=DECAY_GRID),)
# One inverse for each penalty, and one for the penalty chosen: the later grids keep it.
PRIOR_GRIDS = (
    Grid(
        tuple(
            {"regularization": value, "prior_share": share}
            for value in PENALTIES
            for share in (0.0, 0.5, 0.9)  # 0: not below EASE without texts, on validation events
        ),
        scoring=DECAY_GRID,
    ),
    Grid(
        tuple({"prior_regularization": value} for value in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)),
        start={"prior_regularization": 20.0},
    ),
    Grid(tuple({"prior_share": value} for value in (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.97, 1.0))),
)


class EASE(OneStageRecommender):
    """Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019.

    The scores of a history x are x B, with B = I - P diag(1 / diag P) and P = (X^T X + lambda I)^-1. Memory:
    P in float64 (beyond 25,000 items in float32), and B in float32. With `text_prior` B is that of
    `TextPrior`. A fitted model needs neither the encoder nor the texts.
    """

    name = "ease"
    config_class = EASEConfig
    config: EASEConfig
    requested_config: EASEConfig
    read: tuple[Dataset, ItemVectors] | None = None  # while fitting: the vectors, and of which dataset
    prior: TextPrior | None = None  # while fitting

    def grids(self, dataset: Dataset) -> tuple[Grid, ...]:
        return PRIOR_GRIDS if self.requested_config.text_prior else GRIDS

    def check(self, dataset: Dataset) -> None:
        """Refuse open settings without validation events, and texts or vectors that cannot be read."""
        super().check(dataset)
        if self.requested_config.text_prior and (self.read is None or self.read[0] is not dataset):
            self.read = dataset, text_vectors(self.requested_config, dataset)

    def fit(self, dataset: Dataset | str | Path) -> Self:
        self.prior = None
        try:
            return super().fit(as_dataset(dataset))
        finally:
            self.read = self.prior = None

    def _fit(self, train: Dataset, settings: EASEConfig) -> None:
        assert settings.regularization is not None
        if settings.text_prior:
            self.weights = self._prior_weights(train, settings)
            return
        space = empty_item_matrix(train.n_items)
        inverse = item_inverse(train.interactions.matrix, settings.regularization, space)
        self.weights = np.empty(inverse.shape, dtype=np.float32)
        for rows in blocks_of_rows(len(inverse)):
            self.weights[rows] = -inverse[rows] / np.diag(inverse)
        np.fill_diagonal(self.weights, 0.0)

    def _prior_weights(self, train: Dataset, settings: EASEConfig) -> np.ndarray:
        """Weights with a prior of texts, float32 (n_items, n_items)."""
        regularization, share = settings.regularization, settings.prior_share
        assert regularization is not None and share is not None and settings.prior_regularization is not None
        if self.prior is None:
            assert self.read is not None
            self.prior = TextPrior(self.read[1], train)
        return self.prior.weights(regularization, settings.prior_regularization, share)

    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        return np.asarray(weighted_history(users, seen, self.config) @ self.weights, dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.weights = checked_array(arrays, "weights", (len(self.item_ids),) * 2, np.float32)
