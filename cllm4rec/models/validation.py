"""Validation of a recommender that is being trained, by one or several processes."""

import logging
from collections.abc import Callable

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import Measurement, measure
from cllm4rec.models.base import Recommender
from cllm4rec.models.inner_product import InnerProductRecommender, Vectors
from cllm4rec.training.records import VALIDATION_METRIC, EpochRecord

log = logging.getLogger("cllm4rec")

TIMED_SECONDS = 4.0  # after which no other users are timed
FEWEST_USERS, MOST_USERS = 8, 512  # timed at once


class BestVectors:
    """The vectors of users that the best weights of a stage gave in validation.

    What is fitted after training reads the same users, who need not be read again.

    Attributes:
        of_best: of this call of `fit_stage`; empty if another one trained the best weights.
    """

    def __init__(self, model: InnerProductRecommender) -> None:
        self.model = model
        self.latest: Vectors = {}
        self.of_best: Vectors = {}

    def validate(self, validate: Callable[[], float]) -> float:
        """The validation metric of the present weights, whose vectors are kept."""
        self.latest = {}
        with self.model.keeping_vectors(self.latest):
            return validate()

    def note(self, record: EpochRecord) -> None:
        """Keep the vectors of an epoch that is the best so far; called with the record of each."""
        if record.best:
            self.of_best = self.latest
        self.latest = {}


def shared_validation(model: Recommender, dataset: Dataset, accelerator: Accelerator) -> float:
    """The validation metric. Each user is scored by one process; all processes get the same value.

    Raises:
        ValueError: no user has both a validation item and a history.
    """
    users = users_to_validate(dataset, model.most_validated_users)
    # Not in whole batches, of which a process may get one more than another.
    share = users[accelerator.process_index :: accelerator.num_processes]
    measured = []
    if len(share):
        result = _validate(model, dataset, share)
        measured = list(zip(result.users.tolist(), result.per_user[VALIDATION_METRIC].tolist(), strict=True))
    values = dict(pair for of_process in gather_object([measured]) for pair in of_process)
    return float(np.mean([values[user] for user in sorted(values)]))


def validation_seconds(model: Recommender, dataset: Dataset, accelerator: Accelerator) -> float:
    """Seconds that `shared_validation` would take, from users with histories of typical lengths.

    Ever more users are timed at once, until that takes a few seconds.
    """
    users = users_to_validate(dataset, model.most_validated_users)
    by_length = users[np.argsort(np.diff(dataset.seen.interactions.indptr)[users], kind="stable")]
    _validate(model, dataset, by_length[:1])  # what is computed once is not counted
    n, spent = FEWEST_USERS, 0.0
    while True:
        places = ((np.arange(n) + 0.5) / n * len(users)).astype(int)
        timed = by_length[np.unique(places)]
        seconds = _validate(model, dataset, np.sort(timed)).seconds
        spent += seconds
        if len(timed) == len(users) or n >= MOST_USERS or spent > TIMED_SECONDS / 2:
            return seconds * len(users) / len(timed) / accelerator.num_processes
        n *= 4


def log_validated_users(model: Recommender, dataset: Dataset, title: str, accelerator: Accelerator) -> None:
    """Log how many users are read, on the main process, if the model reads some of them.

    Raises:
        ValueError: no user has both a validation item and a history.
    """
    if model.most_validated_users is None:
        return
    n_taken, n_all = (len(users_to_validate(dataset, most)) for most in (model.most_validated_users, None))
    if n_taken < n_all and accelerator.is_main_process:
        log.info("%s is validated on %s of %s users, evenly spaced", title, f"{n_taken:,}", f"{n_all:,}")


def users_to_validate(dataset: Dataset, most: int | None = None) -> np.ndarray:
    """Numbers of the users with validation events and a history.

    Args:
        dataset: of the events.
        most: if there are more users, so many are taken, evenly spaced; None: all.

    Raises:
        ValueError: no user has both.
    """
    n_held_out, n_input = (
        np.diff(events.interactions.indptr) for events in (dataset.validation, dataset.seen)
    )
    users = np.flatnonzero((n_held_out > 0) & (n_input > 0))
    if not len(users):
        raise ValueError("no user with validation events has training events: choose another split")
    if most is not None and len(users) > most:
        users = users[np.linspace(0, len(users) - 1, most).astype(np.int64)]
    return users


def _validate(model: Recommender, dataset: Dataset, users: np.ndarray) -> Measurement:
    """The validation metric of users (n,)."""
    return measure(model, dataset, "validation", metrics=[VALIDATION_METRIC], users=users, slices=False)
