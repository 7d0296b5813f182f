"""Systems fitted in one stage, without a network. Open settings are chosen on validation events."""

import json
import logging
from abc import abstractmethod
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Never, Self

import numpy as np
import scipy.sparse as sp

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.loading import as_dataset
from cllm4rec.evaluation import measure
from cllm4rec.models.base import Recommender
from cllm4rec.models.baselines.config import DecayedInput
from cllm4rec.training.records import VALIDATION_METRIC

log = logging.getLogger("cllm4rec")


class OneStageRecommender(Recommender):
    """A system fitted in one stage. Settings that are None are chosen by NDCG@100 on validation events.

    Attributes:
        grid: candidate values of the settings that fitting needs: setting -> value, one dict a candidate.
        scoring_grid: candidate values of the settings that only scoring needs, by setting. They are tried
            without fitting again.
        requested_config: the settings given; in `config`, fitting fills in the values that it chose.
    """

    grid: ClassVar[tuple[dict[str, Any], ...]] = ()
    scoring_grid: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def __init__(self, config: Any = None, **settings: Never) -> None:
        super().__init__(config, **settings)
        self.requested_config = self.config

    def check(self, dataset: Dataset) -> None:
        """Refuse open settings without validation events."""
        unset = self._unset()
        if unset and not len(dataset.validation.interactions):
            raise ValueError(
                f"{self.name} chooses {' and '.join(f'`{name}`' for name in unset)} on validation events and "
                "there are none: give a value, or prepare with a split"
            )

    def _unset(self) -> list[str]:
        """Names of the settings that are to be chosen."""
        return [name for name, value in asdict(self.requested_config).items() if value is None]

    @abstractmethod
    def _fit(self, train: Dataset, settings: Any) -> None:
        """Learn from the training events with settings none of which is None."""

    def fit(self, dataset: Dataset | str | Path) -> Self:
        """Learn from the training events, and choose the settings that are None on the validation events.

        The logger `cllm4rec` gets a line on each choice that is tried, at level INFO.

        Args:
            dataset: as in `Recommender.fit`, or its folder.

        Raises:
            ValueError: it is no dataset, or a setting is open and there are no validation events.
        """
        dataset = as_dataset(dataset)
        self.check(dataset)
        train, unset = dataset.train, self._unset()
        if not unset:
            self.config = self.requested_config
            self._fit(train, self.config)
            self._learn_ids(dataset)
            return self
        best: tuple[float, Any] = (-1.0, None)
        for candidates in self._choices(unset):
            for number, settings in enumerate(candidates):
                self.config = settings
                if number == 0:
                    self._fit(train, settings)
                    self._learn_ids(dataset)
                result = measure(self, dataset, "validation", metrics=[VALIDATION_METRIC])
                quality = result.metrics[VALIDATION_METRIC]
                chosen = json.dumps({name: getattr(settings, name) for name in unset})
                log.info("%s %s: validation %s %.4f", self.name, chosen, VALIDATION_METRIC, quality)
                if quality > best[0]:
                    best = (quality, settings)
        self.config = best[1]
        self._fit(train, self.config)
        return self

    def _choices(self, unset: list[str]) -> list[list[Any]]:
        """Settings to try; those of an inner list differ in the scoring grid only, and share one fit."""
        fitting = dict.fromkeys(
            tuple((name, choice[name]) for name in unset if name in choice) for choice in self.grid
        )
        scored_settings = [name for name in unset if name in self.scoring_grid]
        values = product(*(self.scoring_grid[name] for name in scored_settings))
        scoring = [tuple(zip(scored_settings, choice, strict=True)) for choice in values]
        return [
            [replace(self.requested_config, **dict([*fit, *score])) for score in scoring] for fit in fitting
        ]


DECAY_GRID = {"decay": (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)}


def weighted_history(users: np.ndarray, seen: Dataset, config: DecayedInput) -> sp.csr_matrix:
    """Histories of users (B,), older events weighted by `config.decay`, float32 (B, n_items)."""
    events = seen.interactions
    matrix = events.matrix if config.decay in (None, 1.0) else events.decayed(config.decay)
    return matrix[users]
