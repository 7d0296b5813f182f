"""Validation of a recommender that is being trained, by one or several processes."""

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.models.base import Recommender
from cllm4rec.training.records import VALIDATION_METRIC

TIMED_USERS = 512


def shared_validation(model: Recommender, dataset: Dataset, accelerator: Accelerator) -> float:
    """The validation metric. Each user is scored by one process; all processes get the same value.

    Raises:
        ValueError: no user has both a held-out item and a history.
    """
    seen, held_out = dataset.seen, dataset.validation
    users = np.flatnonzero(np.diff(held_out.interactions.indptr) > 0)
    share = users[accelerator.process_index :: accelerator.num_processes]
    result = measure(model, seen, held_out, users=share)
    gathered = gather_object([(result.users.tolist(), result.per_user[VALIDATION_METRIC].tolist())])
    values = {
        user: value
        for process_users, process_values in gathered
        for user, value in zip(process_users, process_values, strict=True)
    }
    if not values:
        raise ValueError("no user with validation events has training events: choose another split")
    return float(np.mean([values[user] for user in sorted(values)]))


def validation_seconds(model: Recommender, dataset: Dataset, accelerator: Accelerator) -> float:
    """Seconds that `shared_validation` would take, from users at equal distances."""
    seen, held_out = dataset.seen, dataset.validation
    users = np.flatnonzero(np.diff(held_out.interactions.indptr) > 0)
    timed = users[:: max(1, len(users) // TIMED_USERS)]
    measure(model, seen, held_out, users=timed[:1])  # what is computed once is not counted
    seconds = measure(model, seen, held_out, users=timed).seconds
    return seconds * len(users) / len(timed) / accelerator.num_processes
