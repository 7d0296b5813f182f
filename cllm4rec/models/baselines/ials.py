"""iALS: matrix factorisation of implicit feedback by alternating least squares, by the `implicit` library."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import hash_ids
from cllm4rec.data.randomness import uniform
from cllm4rec.models.baselines.config import IALSConfig
from cllm4rec.models.description import checked_array
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.models.one_stage import Grid, OneStageRecommender

FACTORS, START = (64, 128, 256, 512, 1024), 128
# What is good is a narrow range of their ratio, whose place depends on alpha.
ALPHAS, RATIOS = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0), (2.0, 3.0, 4.5, 6.0, 9.0)


class IALS(OneStageRecommender, InnerProductRecommender):
    """Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", 2008.

    Every user, new or not, is folded in from the events in `seen` by one least-squares solve.
    """

    name = "ials"
    config_class = IALSConfig
    config: IALSConfig
    requested_config: IALSConfig

    def grids(self, dataset: Dataset) -> tuple[Grid, ...]:
        """First the penalty and the weight of events, at START factors, then the factors.

        More factors than users or items - 1 add nothing: the smaller number bounds the rank of the events.
        """
        most = max(1, min(dataset.n_users, dataset.n_items) - 1)
        factors = [number for number in FACTORS if number <= most] or [most]
        start = max(number for number in factors if number <= START)
        alphas = ALPHAS if self.requested_config.alpha is None else (self.requested_config.alpha,)
        penalties = (
            {"regularization": alpha * ratio, "alpha": alpha} for alpha in alphas for ratio in RATIOS
        )
        return (
            Grid(tuple(penalties)),
            Grid(tuple({"factors": number} for number in factors), start={"factors": start}),
        )

    def check(self, dataset: Dataset) -> None:
        super().check(dataset)
        _library_model(self.config)

    def _fit(self, train: Dataset, settings: IALSConfig) -> None:
        assert settings.factors is not None
        self.model = _library_model(settings)
        # initialised by item id, so that the numbering of the items does not matter
        hashes = hash_ids(train.items["item_id"])[:, None]
        initial = uniform(settings.seed, hashes, np.arange(settings.factors))  # (n_items, factors)
        self.model.item_factors = (initial * 0.01).astype(np.float32)
        self.model.fit(train.interactions.matrix, show_progress=False)

    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        histories = seen.interactions.matrix[users]
        vectors = np.atleast_2d(self.model.recalculate_user(np.arange(len(users)), histories))
        vectors[np.diff(histories.indptr) == 0] = 0.0
        user_vectors = torch.from_numpy(np.asarray(vectors, dtype=np.float32))  # (B, factors)
        return user_vectors, self.item_vectors()

    def _item_vectors(self) -> Tensor:
        return torch.from_numpy(self.model.item_factors)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"item_factors": self.model.item_factors}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.model = _library_model(self.config)
        shape = (len(self.item_ids), self.config.factors)
        self.model.item_factors = checked_array(arrays, "item_factors", shape, np.float32)


def _library_model(settings: IALSConfig) -> Any:
    """The library's model with these settings.

    Raises:
        ValueError: the library is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError as error:
        raise ValueError(
            "system 'ials' needs the implicit library: pip install implicit (extra cllm4rec[baselines])"
        ) from error
    return AlternatingLeastSquares(
        factors=settings.factors,
        regularization=settings.regularization,
        alpha=settings.alpha,
        iterations=settings.iterations,
        random_state=settings.seed,
        num_threads=1,
    )
