"""Metrics of slices: groups of users, and of held-out events."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cllm4rec.data.dataset import Task
from cllm4rec.data.ragged import Ragged, ranges
from cllm4rec.metrics import OF_RANKS, Metric

QUARTILES = (0.25, 0.5, 0.75)
BY_ACTIVITY = "input events of the user"
BY_POPULARITY = "training events of the held-out item"
FEW = 5  # training events: fewer of them are few
FEW_OF_USER = f"training events of the user, fewer than {FEW} or not"
FEW_OF_ITEM = f"training events of the held-out item, fewer than {FEW} or not"
BY_DAY = "days between the held-out event and the nearest input event of its user"
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Slice:
    """A group of the users, or of the held-out events; equal numbers are in one group.

    Attributes:
        by: the number that makes the groups: one of the constants above.
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


def few_events_groups(numbers: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """The groups of numbers (n,) below `FEW`, and of the others, as `quartile_groups` gives them.

    Where no number is below `FEW` there are no groups.
    """
    few = numbers < FEW
    return _groups(numbers, (few, ~few) if few.any() else ())


def same_day_groups(days: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """The groups of days (n,) that are 0 and above 0, as `quartile_groups` gives them; -1 is in none."""
    return _groups(days, (days == 0, days > 0))


def _groups(numbers: np.ndarray, masks: Iterable[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Lowest and highest number, and mask, of each group that is not empty."""
    for mask in masks:
        if mask.any():
            yield int(numbers[mask].min()), int(numbers[mask].max()), mask


def days_to_input(task: Task, users: np.ndarray) -> np.ndarray | None:
    """Days (UTC) from each held-out event to the nearest input event of its user; None without times.

    Args:
        task: with the events.
        users: (n,) numbers of users with input events.

    Returns:
        int64, of the held-out events of the first user, then of the second, and so on; -1 where an event or
        all input events of its user have no time. A missing time is below 0 (`number_events`).
    """
    given, held_out = task.input.interactions, task.held_out.interactions
    if given.times is None or held_out.times is None:
        return None
    starts = held_out.indptr[users]
    events = ranges(starts, held_out.indptr[users + 1] - starts)
    timed = given.times >= 0
    owners, given_days = given.users[timed], given.times[timed] // SECONDS_A_DAY
    of_events, days = held_out.users[events], held_out.times[events] // SECONDS_A_DAY
    result = np.full(len(events), -1)
    wanted = np.flatnonzero((days >= 0) & np.isin(of_events, owners))
    if not len(wanted):
        return result
    span = 2 * (max(given_days.max(), days.max()) + 1)  # days of two users are further apart
    keys = np.sort(owners * span + given_days)
    sought = of_events[wanted] * span + days[wanted]
    after = np.searchsorted(keys, sought)
    neighbours = keys[np.clip([after - 1, after], 0, len(keys) - 1)]  # (2, n)
    result[wanted] = np.abs(neighbours - sought).min(0)
    return result


def slices_of_users(
    by: str, groups: Iterable[tuple[int, int, np.ndarray]], per_user: dict[str, np.ndarray]
) -> Iterator[Slice]:
    """Metrics of groups of users; no slice without a metric.

    Args:
        by: the number that makes the groups.
        groups: lowest and highest number, and mask (n_users,), of each group.
        per_user: metric -> (n_users,).
    """
    for lowest, highest, mask in groups if per_user else ():
        metrics = {name: float(values[mask].mean()) for name, values in per_user.items()}
        yield Slice(by, lowest, highest, int(mask.sum()), metrics)


def slices_of_held_out(
    by: str,
    groups: Iterable[tuple[int, int, np.ndarray]],
    ranks: Ragged,
    requested: Sequence[Metric],
) -> Iterator[Slice]:
    """Metrics of groups of held-out events.

    The held-out items of a user are those of the slice. Users without one there do not count.

    Args:
        by: the number that makes the groups.
        groups: lowest and highest number, and mask (n_held_out,), of each group.
        ranks: of the held-out items, one row a user.
        requested: the metrics; those of lists and of the catalogue are not of held-out items.
    """
    of_ranks = [metric for metric in requested if metric.family in OF_RANKS]
    for lowest, highest, mask in groups if of_ranks else ():
        inside = ranks.filter(mask)
        starts = inside.starts[inside.lengths > 0]
        metrics = {
            str(metric): float(OF_RANKS[metric.family](inside.values, starts, metric.k).mean())
            for metric in of_ranks
        }
        yield Slice(by, lowest, highest, len(starts), metrics)
