"""Systems fitted in one stage, without a network. Open settings are chosen on validation events."""

import json
import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Never, Self

import numpy as np
import scipy.sparse as sp

from cllm4rec.data.audit import auditing, learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.loading import as_dataset
from cllm4rec.evaluation import measure
from cllm4rec.models.base import Recommender
from cllm4rec.models.baselines.config import DecayedInput
from cllm4rec.training.records import VALIDATION_METRIC

log = logging.getLogger("cllm4rec")


@dataclass(frozen=True)
class Grid:
    """Candidate values of settings that are chosen together.

    Attributes:
        fitting: of the settings that fitting needs: setting -> value, one dict a candidate.
        scoring: of the settings that only scoring needs, by setting. They are tried without fitting again.
        start: values of this grid's settings while earlier grids are searched.
    """

    fitting: tuple[dict[str, Any], ...]
    scoring: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> set[str]:
        """Names of the settings."""
        return {name for choice in self.fitting for name in choice} | set(self.scoring)

    def around(self, settings: Any, unset: list[str]) -> list[list[Any]]:
        """Settings to try: `settings` with candidates in place of those that are unset.

        Those of an inner list differ in `scoring` only, and share one fit.
        """
        fitting = dict.fromkeys(
            tuple((name, choice[name]) for name in unset if name in choice) for choice in self.fitting
        )
        scored = [name for name in unset if name in self.scoring]
        values = product(*(self.scoring[name] for name in scored))
        scoring = [tuple(zip(scored, choice, strict=True)) for choice in values]
        return [[replace(settings, **dict([*fit, *score])) for score in scoring] for fit in fitting]


class OneStageRecommender(Recommender):
    """A system fitted in one stage. Settings that are None are chosen by NDCG@100 on validation events.

    Attributes:
        requested_config: the settings given; in `config`, fitting fills in the values that it chose.
    """

    def __init__(self, config: Any = None, **settings: Never) -> None:
        super().__init__(config, **settings)
        self.requested_config = self.config

    def grids(self, dataset: Dataset) -> tuple[Grid, ...]:
        """Grids of the settings to choose, searched one after the other. Each starts from the best so far."""
        return ()

    def check(self, dataset: Dataset) -> None:
        """Refuse open settings without validation events."""
        unset = self._unset(dataset)
        if unset and not len(dataset.validation.interactions):
            raise ValueError(
                f"{self.name} chooses {' and '.join(f'`{name}`' for name in unset)} on validation events and "
                "there are none: give a value, or prepare with a split"
            )

    def _unset(self, dataset: Dataset) -> list[str]:
        """Names of the settings that are to be chosen."""
        names = {name for grid in self.grids(dataset) for name in grid.settings}
        given = asdict(self.requested_config)
        return [name for name, value in given.items() if value is None and name in names]

    @abstractmethod
    def _fit(self, train: Dataset, settings: Any) -> None:
        """Learn from the training events with settings none of which is to be chosen."""

    def fit(self, dataset: Dataset | str | Path) -> Self:
        """Learn from the training events, and choose the settings that are None on the validation events.

        The logger `cllm4rec` gets a line on each choice that is tried, at level INFO.

        Args:
            dataset: as in `Recommender.fit`, or its folder.

        Raises:
            LeakError: held-out events would be learned from.
            ValueError: it is no dataset, or a setting is open and there are no validation events.
        """
        dataset = as_dataset(dataset)
        self.check(dataset)
        unset = self._unset(dataset)
        with auditing(dataset, self.name):
            settings = self._search(dataset, unset) if unset else self.requested_config
            self.config = settings
            self._learn(dataset)
        return self

    def _learn(self, dataset: Dataset) -> None:
        """Learn from the training events with the settings in `config`."""
        learns_from(f"the fit of {self.name}", dataset.train.interactions)
        self._fit(dataset.train, self.config)
        self._learn_ids(dataset)

    def _search(self, dataset: Dataset, unset: list[str]) -> Any:
        """The best settings of all that were tried; of equal ones the first."""
        grids = self.grids(dataset)
        starts = [(name, value) for grid in grids for name, value in grid.start.items() if name in unset]
        best = replace(self.requested_config, **dict(starts))
        tried: dict[Any, float] = {}  # settings -> quality, in the order in which they were tried
        for grid in grids:
            for candidates in grid.around(best, unset):
                new = [settings for settings in candidates if settings not in tried]
                tried.update(self._tried(dataset, new, unset))
            best = max(tried, key=lambda settings: tried[settings])
        line = "%s takes %s: validation %s %.4f"
        log.info(line, self.name, _values(best, unset), VALIDATION_METRIC, tried[best])
        return best

    def _tried(
        self, dataset: Dataset, candidates: list[Any], unset: list[str]
    ) -> Iterable[tuple[Any, float]]:
        """Settings that share one fit, with their validation metric."""
        for number, settings in enumerate(candidates):
            self.config = settings
            if number == 0:
                self._learn(dataset)
            result = measure(self, dataset, "validation", metrics=[VALIDATION_METRIC], slices=False)
            quality = result.metrics[VALIDATION_METRIC]
            line = "%s %s: validation %s %.4f"
            log.info(line, self.name, _values(settings, unset), VALIDATION_METRIC, quality)
            yield settings, quality


def _values(settings: Any, names: Sequence[str]) -> str:
    """Some settings and their values, in a line."""
    return json.dumps({name: getattr(settings, name) for name in names})


DECAY_GRID = {"decay": (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)}


def weighted_history(users: np.ndarray, seen: Dataset, config: DecayedInput) -> sp.csr_matrix:
    """Histories of users (B,), older events weighted by `config.decay`, float32 (B, n_items)."""
    events = seen.interactions
    return events.matrix[users] if config.decay in (None, 1.0) else events.decayed(users, config.decay)
