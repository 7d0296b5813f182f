"""The result of measuring a system, and paired differences of two results."""

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation.intervals import bootstrap_intervals
from cllm4rec.evaluation.slices import Slice

STANDARD_ERROR = "standard_error"  # of `measure_choices`, over its events


@dataclass(frozen=True)
class Conditions:
    """What was measured, whatever the system. Measurements are comparable if these are equal.

    Attributes:
        part: the held-out events.
        data_sha256, split_sha256: of the dataset (`DatasetHashes`).
        protocol: how items compete, in words.
    """

    part: str
    data_sha256: str
    split_sha256: str
    protocol: str


def conditions(dataset: Dataset, part: str, protocol: str) -> Conditions:
    """The conditions of a measurement on the held-out events of a dataset."""
    hashes = dataset.hashes
    return Conditions(part, hashes.data_sha256, hashes.split_sha256, protocol)


@dataclass(frozen=True)
class Measurement:
    """Result of `measure` or `measure_choices`.

    Attributes:
        conditions: what was measured.
        metrics: name -> mean over users; for coverage and Gini index, the value over all lists.
        per_user: name -> float64 (n_measured,), rows as `users`, of metrics that are means over users.
        users: (n_measured,) numbers of the users with held-out items.
        n_without_history: users left out because they have held-out items but no input event.
        seconds: wall time.
        slices: the metrics of groups of users and of held-out items.
    """

    conditions: Conditions
    metrics: dict[str, float]
    per_user: dict[str, np.ndarray] = field(repr=False)
    users: np.ndarray = field(repr=False)
    n_without_history: int
    seconds: float
    slices: tuple[Slice, ...] = field(default=(), repr=False)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap interval of each metric in `per_user`; none for a single user."""
        return bootstrap_intervals(self.per_user) if len(self.users) > 1 and self.per_user else {}


@dataclass(frozen=True)
class Difference:
    """A metric of a system minus that of another: the mean, and its 95 % bootstrap interval if it has one."""

    mean: float
    interval: tuple[float, float] | None


def differences(result: Measurement, other: Measurement) -> dict[str, Difference]:
    """Paired differences of two systems, measured in the same way: `result` minus `other`, by metric.

    Raises:
        ValueError: the conditions, the users or the metrics differ; the message names them.
    """
    same = {
        each.name: getattr(result.conditions, each.name) == getattr(other.conditions, each.name)
        for each in fields(Conditions)
    }
    same["users"] = np.array_equal(result.users, other.users)
    same["metrics"] = result.metrics.keys() == other.metrics.keys()
    if different := [name for name, equal in same.items() if not equal]:
        raise ValueError(
            f"the two measurements differ in {', '.join(different)}: measure both systems in the same way"
        )
    paired = {name: values - other.per_user[name] for name, values in result.per_user.items()}
    intervals = bootstrap_intervals(paired) if len(result.users) > 1 and paired else {}
    return {
        name: Difference(value - other.metrics[name], intervals.get(name))
        for name, value in result.metrics.items()
        if name != STANDARD_ERROR
    }
