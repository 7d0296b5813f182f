"""`measure`: metrics of the top-k lists that a system ranks."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from cllm4rec.data.audit import audited_task
from cllm4rec.data.dataset import Dataset, Task
from cllm4rec.data.loading import as_dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.evaluation.measurement import Measurement, conditions
from cllm4rec.evaluation.processes import USERS_AT_ONCE, gathered, share
from cllm4rec.evaluation.selection import NOTHING_TO_MEASURE, selected_users
from cllm4rec.evaluation.slices import (
    BY_ACTIVITY,
    BY_DAY,
    BY_POPULARITY,
    FEW_OF_ITEM,
    FEW_OF_USER,
    Slice,
    days_to_input,
    few_events_groups,
    quartile_groups,
    same_day_groups,
    slices_of_held_out,
    slices_of_users,
)
from cllm4rec.metrics import (
    FAMILIES,
    KS,
    NOT_LISTED,
    OF_CATALOGUE,
    OF_LISTS,
    OF_RANKS,
    Metric,
    TrainingEvents,
    requested_metrics,
)

if TYPE_CHECKING:  # metrics need no torch
    from accelerate import Accelerator

    from cllm4rec.ranking import Ranking

PROTOCOL = "full ranking, known items masked; recall@k = hits / min(k, n held out); ties by a hash of the id"


class Ranker(Protocol):
    """A system as full ranking needs it."""

    def rank_batches(
        self,
        users: np.ndarray,
        seen: Dataset,
        k: int = 10,
        batch_size: int = USERS_AT_ONCE,
        masked: Dataset | None = None,
        **options: Any,
    ) -> Iterator["Ranking"]:
        """Lists of users with the histories in `seen`, without their items in `masked`, in batches.

        `measure` gives an option `diversity` if it is not 0.
        """
        ...


def measure(
    model: Ranker,
    dataset: Dataset | str | Path,
    part: Literal["validation", "test"] = "test",
    *,
    metrics: Sequence[str] = FAMILIES,
    ks: Sequence[int] = KS,
    users: Sequence[int] | np.ndarray | None = None,
    slices: bool = True,
    accelerator: "Accelerator | None" = None,
    diversity: float = 0.0,
) -> Measurement:
    """Measure the lists of every user with held-out items and a history.

    Args:
        model: any system.
        dataset: the data, or its folder; `Dataset.task` gives the input, held-out and masked events.
        part: the held-out events to predict.
        metrics: families (`metrics.FAMILIES`), measured at all `ks`, and full names such as `ndcg@100`.
        ks: list lengths.
        users: (n,) numbers of the users to measure, a repeated one once; all if not given. Users without an
            event in `part` or without an input event are left out.
        slices: whether the metrics of groups of users and of held-out events are given too.
        accelerator: processes that share the users in whole batches. All get the same result, that of one
            process; one process if not given.
        diversity: of the lists, as in `Recommender.rank`.

    Raises:
        LeakError: a held-out event is input too.
        ValueError: an argument is wrong, no user is left, or a score is NaN.
    """
    requested, dataset = requested_metrics(metrics, ks), as_dataset(dataset)
    measured_as = conditions(dataset, part, PROTOCOL)
    began = time.perf_counter()
    task = audited_task(model, dataset, part)
    measured, n_without_history = _measured_users(task, users)
    learned = dataset.train.interactions
    training = TrainingEvents(learned.users, learned.items, dataset.tie_order)
    share_of_users = measured[share(len(measured), USERS_AT_ONCE, accelerator)]
    of_share = _measure_lists(model, task, share_of_users, requested, training, diversity)
    lists = _joined(gathered(of_share, accelerator))
    held_out = task.held_out.interactions.histories(measured)
    ranks = Ragged(lists.ranks, held_out.lengths)
    per_user, values = {}, {}
    for metric in requested:
        name = str(metric)
        if metric.family in OF_CATALOGUE:
            values[name] = OF_CATALOGUE[metric.family](lists.occurrences[metric.k])
            continue
        if metric.family in OF_LISTS:
            per_user[name] = lists.per_user[name]
        else:
            per_user[name] = OF_RANKS[metric.family](ranks.values, ranks.starts, metric.k)
        values[name] = float(per_user[name].mean())
    groups: list[Slice] = []
    if slices:
        n_training = np.diff(learned.indptr)[measured], training.events_of_items[held_out.values]
        groups = _slices(task, measured, per_user, n_training, ranks, requested)
    seconds = time.perf_counter() - began
    return Measurement(measured_as, values, per_user, measured, n_without_history, seconds, tuple(groups))


def _slices(
    task: Task,
    users: np.ndarray,
    per_user: dict[str, np.ndarray],
    n_training: tuple[np.ndarray, np.ndarray],
    ranks: Ragged,
    requested: Sequence[Metric],
) -> list[Slice]:
    """Metrics of groups of users (n,) and of their held-out events.

    Args:
        task, requested: as measured.
        users: their numbers.
        per_user: metric -> (n,).
        n_training: training events of the users (n,), and of the held-out items.
        ranks: of the held-out items, one row a user.
    """
    n_input = np.diff(task.input.interactions.indptr)[users]
    of_users, of_items = n_training
    slices = list(slices_of_users(BY_ACTIVITY, quartile_groups(n_input), per_user))
    slices += slices_of_users(FEW_OF_USER, few_events_groups(of_users), per_user)
    slices += slices_of_held_out(BY_POPULARITY, quartile_groups(of_items), ranks, requested)
    slices += slices_of_held_out(FEW_OF_ITEM, few_events_groups(of_items), ranks, requested)
    if (days := days_to_input(task, users)) is not None:
        slices += slices_of_held_out(BY_DAY, same_day_groups(days), ranks, requested)
    return slices


def _measured_users(task: Task, users: Sequence[int] | np.ndarray | None) -> tuple[np.ndarray, int]:
    """The selected users with a held-out item and a history; and how many have no history.

    Raises:
        ValueError: none has both.
    """
    n_held_out, n_input = (np.diff(events.interactions.indptr) for events in (task.held_out, task.input))
    with_held_out = np.flatnonzero(selected_users(users, task.input.n_users) & (n_held_out > 0))
    measured = with_held_out[n_input[with_held_out] > 0]
    if not len(measured):
        raise ValueError(NOTHING_TO_MEASURE)
    return measured, len(with_held_out) - len(measured)


@dataclass(frozen=True)
class _Lists:
    """Results of the lists of n users.

    Attributes:
        ranks: int64 (n_held_out,), ranks of the users' held-out items, `NOT_LISTED` outside the lists.
        per_user: metric of lists -> float64 (n,).
        occurrences: list length -> int64 (n_items,), number of lists that hold each item.
    """

    ranks: np.ndarray
    per_user: dict[str, np.ndarray]
    occurrences: dict[int, np.ndarray]


def _measure_lists(
    model: Ranker,
    task: Task,
    users: np.ndarray,
    requested: Sequence[Metric],
    training: TrainingEvents,
    diversity: float,
) -> _Lists:
    """Rank for users (n,) and look their held-out items up in the lists."""
    k = max(metric.k for metric in requested)
    of_lists = [metric for metric in requested if metric.family in OF_LISTS]
    n_items = task.input.n_items
    ranks, per_user = [np.empty(0, dtype=np.int64)], {str(metric): [np.empty(0)] for metric in of_lists}
    occurrences = {
        metric.k: np.zeros(n_items, dtype=np.int64) for metric in requested if metric.family in OF_CATALOGUE
    }
    options = {"diversity": diversity} if diversity else {}
    ranked = model.rank_batches(users, task.input, k, USERS_AT_ONCE, task.masked, **options)
    for batch in ranked if len(users) else ():
        held_out = task.held_out.interactions.histories(batch.users)
        ranks.append(ranks_in_lists(batch.items, held_out.rows, held_out.values, n_items))
        for metric in of_lists:
            values = OF_LISTS[metric.family](batch.items[:, : metric.k], training)
            per_user[str(metric)].append(values)
        for length, counts in occurrences.items():
            listed = batch.items[:, :length]
            counts += np.bincount(listed[listed >= 0], minlength=n_items)
    joined = {name: np.concatenate(values) for name, values in per_user.items()}
    return _Lists(np.concatenate(ranks), joined, occurrences)


def ranks_in_lists(lists: np.ndarray, rows: np.ndarray, items: np.ndarray, n_items: int) -> np.ndarray:
    """Ranks (0 is best) of items (n,) in the lists (B, k) of rows (n,), int64 (n,); else `NOT_LISTED`.

    Args:
        lists: int64, distinct items of each row, -1 after the last.
        rows, items: row and item to look up.
        n_items: size of the catalogue.
    """
    keys = (np.arange(len(lists))[:, None] * (n_items + 1) + lists + 1).ravel()  # -1 has a key of its own
    wanted = rows * (n_items + 1) + items + 1
    order = np.argsort(keys)
    index = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[index] == wanted, index % lists.shape[1], NOT_LISTED)


def _joined(results: Sequence[_Lists]) -> _Lists:
    """The results of all users, from those of each process."""
    return _Lists(
        np.concatenate([result.ranks for result in results]),
        {name: np.concatenate([result.per_user[name] for result in results]) for name in results[0].per_user},
        {k: np.sum([result.occurrences[k] for result in results], axis=0) for k in results[0].occurrences},
    )
