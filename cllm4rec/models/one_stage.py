"""Systems that are fitted in one go, their settings chosen from a grid on validation events."""

import json
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.models.base import Recommender
from cllm4rec.models.baselines.config import DecayedInput

Report = Callable[[str], None]


class OneStageRecommender(Recommender):
    """A system fitted in one go, whose settings are chosen on the validation events where they are None."""

    grid: ClassVar[tuple[dict[str, Any], ...]] = ()  # choices of the settings that fitting needs
    at_scoring: ClassVar[dict[str, tuple[Any, ...]]] = {}  # choices of those that act on scoring alone

    @abstractmethod
    def _fit(self, train: Dataset, settings: Any) -> None:
        """Learn from the training events with these settings."""

    def fit(
        self,
        train: Dataset,
        validation: Dataset | None = None,
        report: Report = lambda line: None,
        *,
        seen: Dataset | None = None,
    ) -> Self:
        """Learn from `train`. Settings that are None are chosen by NDCG@100 on `validation` over the system's grid, with
        the events of `seen` as input (`train` if not given).

        Raises:
            ValueError: a setting is open and there are no validation events to choose it by.
        """
        self._learn_ids(train)
        unset = [name for name, value in asdict(self.requested_config).items() if value is None]
        if not unset:
            self.config = self.requested_config
            self._fit(train, self.config)
            return self
        if validation is None or not len(validation.interactions):
            raise ValueError(
                f"{self.name} chooses {', '.join(unset)} on validation events and there are none: "
                "give a value, or prepare with a split"
            )
        best: tuple[float, Any] = (-1.0, None)
        for alike in self._choices(unset):
            for number, settings in enumerate(alike):
                self.config = settings
                if number == 0:
                    self._fit(train, settings)
                quality = measure(self, seen or train, validation).metrics["ndcg@100"]
                chosen = {name: getattr(settings, name) for name in unset}
                report(f"{self.name} {json.dumps(chosen)}: validation ndcg@100 {quality:.4f}")
                if quality > best[0]:
                    best = (quality, settings)
        self.config = best[1]
        self._fit(train, self.config)
        return self

    def _choices(self, unset: list[str]) -> list[list[Any]]:
        """Settings to try, those that need no fitting in between side by side."""
        fitted = dict.fromkeys(
            tuple((name, choice[name]) for name in unset if name in choice) for choice in self.grid
        )
        scored = list(
            product(
                *(
                    [(name, value) for value in self.at_scoring[name]]
                    for name in unset
                    if name in self.at_scoring
                )
            )
        )
        return [
            [replace(self.requested_config, **dict([*one, *other])) for other in scored] for one in fitted
        ]


DECAYS = {"decay": (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)}


def weighted_history(users: np.ndarray, seen: Dataset, config: DecayedInput) -> sp.csr_matrix:
    """Histories of users (B,), weighted by their order, float32 (B, n_items)."""
    events = seen.interactions
    return (events.matrix if config.decay in (None, 1.0) else events.decayed(config.decay))[users]
