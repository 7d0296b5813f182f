"""The time of a network alone, with which `experiments.benchmarks.service` compares a request."""

import os
import time
from pathlib import Path

import numpy as np

from cllm4rec import load
from cllm4rec.models.inner_product import InnerProductRecommender


class BareForward:
    """The network's states of the history of one user after another.

    Attributes:
        users: ids of users with a history.
    """

    def __init__(self, run: Path, most: int) -> None:
        """Load a run.

        Args:
            run: its folder; its dataset has to be there.
            most: users.

        Raises:
            SystemExit: the system has no network.
        """
        model = load(run)
        if not isinstance(model, InnerProductRecommender):
            raise SystemExit(f"error: {model.name} has no network: name a run of cllm4rec or another network")
        self._vectors, self._seen = model._vectors, model._source_dataset()
        self._rows = np.flatnonzero(np.diff(self._seen.interactions.indptr))[:most]
        self._trained = model._trained_users(self._rows, self._seen)
        self.users: list[object] = self._seen.user_ids.names(self._rows).to_list()

    def milliseconds(self, most: int) -> float:
        """CPU time for a user on the first core, the median of the first users."""
        cores, times = os.sched_getaffinity(0), []
        os.sched_setaffinity(0, {0})
        for place in range(len(self._rows[:most])):
            one = slice(place, place + 1)
            start = time.process_time()
            self._vectors(self._rows[one], self._trained[one], self._seen)
            times.append(time.process_time() - start)
        os.sched_setaffinity(0, cores)
        return float(np.median(times)) * 1000
