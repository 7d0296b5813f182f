"""Metrics of slices: quartiles of users by activity, and of held-out items by popularity."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cllm4rec.data.ragged import Ragged
from cllm4rec.metrics import OF_RANKS, Metric

QUARTILES = (0.25, 0.5, 0.75)
BY_ACTIVITY = "input events of the user"
BY_POPULARITY = "training events of the held-out item"


@dataclass(frozen=True)
class Slice:
    """A quartile group of the users, or of the held-out items; equal numbers are in one group.

    Attributes:
        by: the number that makes the groups: `BY_ACTIVITY` or `BY_POPULARITY`.
        lowest, highest: this number in the slice.
        n_users: users whose metrics are averaged.
        metrics: name -> mean over these users.
    """

    by: str
    lowest: int
    highest: int
    n_users: int
    metrics: dict[str, float]


def quartile_groups(numbers: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """The quartile groups of numbers (n,): lowest and highest number, and mask (n,); no empty group.

    Equal numbers are in one group, the lower one, so that groups may differ in size.
    """
    if not len(numbers):
        return
    bounds = np.quantile(numbers, QUARTILES, method="inverted_cdf")
    group = np.searchsorted(bounds, numbers)  # (n,) 0 .. 3; a number equal to a bound is below it
    for number in np.unique(group):
        members = numbers[group == number]
        yield int(members.min()), int(members.max()), group == number


def slices_by_activity(n_input: np.ndarray, per_user: dict[str, np.ndarray]) -> Iterator[Slice]:
    """Metrics of users by their number of input events (n_users,); no slice without a metric."""
    for lowest, highest, mask in quartile_groups(n_input) if per_user else ():
        metrics = {name: float(values[mask].mean()) for name, values in per_user.items()}
        yield Slice(BY_ACTIVITY, lowest, highest, int(mask.sum()), metrics)


def slices_by_popularity(
    n_training: np.ndarray, ranks: Ragged, requested: Sequence[Metric]
) -> Iterator[Slice]:
    """Metrics by the number of training events of the held-out items.

    The held-out items of a user are those of the slice. Users without one there do not count.

    Args:
        n_training: int64 (n_held_out,), training events of each held-out item.
        ranks: of the held-out items, one row a user.
        requested: the metrics; those of lists and of the catalogue are not of held-out items.
    """
    of_ranks = [metric for metric in requested if metric.family in OF_RANKS]
    for lowest, highest, mask in quartile_groups(n_training) if of_ranks else ():
        inside = ranks.filter(mask)
        starts = inside.starts[inside.lengths > 0]
        metrics = {
            str(metric): float(OF_RANKS[metric.family](inside.values, starts, metric.k).mean())
            for metric in of_ranks
        }
        yield Slice(BY_POPULARITY, lowest, highest, len(starts), metrics)
