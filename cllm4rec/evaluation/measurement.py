"""The result of measuring a system, and paired differences of two results."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cllm4rec.evaluation.intervals import bootstrap_intervals
from cllm4rec.evaluation.slices import Slice

STANDARD_ERROR = "standard_error"  # of `measure_choices`, over its events


@dataclass(frozen=True)
class Measurement:
    """Result of `measure` or `measure_choices`.

    Attributes:
        metrics: name -> mean over users; for coverage and Gini index, the value over all lists.
        per_user: name -> float64 (n_measured,), rows as `users`, of metrics that are means over users.
        users: (n_measured,) numbers of the users with held-out items.
        n_without_history: users left out because they have held-out items but no input event.
        seconds: wall time.
        slices: the metrics of groups of users and of held-out items.
    """

    metrics: dict[str, float]
    per_user: dict[str, np.ndarray]
    users: np.ndarray
    n_without_history: int
    seconds: float
    slices: tuple[Slice, ...] = ()

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
    """Paired differences of two systems, measured on the same users: `result` minus `other`, by metric.

    Raises:
        ValueError: the users or the metrics differ.
    """
    if list(result.metrics) != list(other.metrics) or not np.array_equal(result.users, other.users):
        raise ValueError("the two measurements have other users or metrics: measure both in the same way")
    paired = {name: values - other.per_user[name] for name, values in result.per_user.items()}
    intervals = bootstrap_intervals(paired) if len(result.users) > 1 and paired else {}
    return {
        name: Difference(value - other.metrics[name], intervals.get(name))
        for name, value in result.metrics.items()
        if name != STANDARD_ERROR
    }
