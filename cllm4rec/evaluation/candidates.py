"""`measure_choices`: is the held-out item chosen among candidates?"""

import operator
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from cllm4rec.data.audit import audited_task
from cllm4rec.data.candidates import draw_candidates, title_groups
from cllm4rec.data.dataset import Dataset, Task
from cllm4rec.data.loading import as_dataset
from cllm4rec.evaluation.measurement import STANDARD_ERROR, Measurement, conditions
from cllm4rec.evaluation.processes import gathered, share
from cllm4rec.evaluation.selection import NOTHING_TO_MEASURE, selected_users
from cllm4rec.messages import counted, escaped, shorten

if TYPE_CHECKING:  # it imports torch
    from accelerate import Accelerator

AMONG_CANDIDATES = (
    "the held-out item among {candidates} candidates, the others drawn at random from items the user is not "
    "known to have, no two of one title; {draws} of them averaged (seed {seed})"
)
EVENTS_AT_ONCE = 512  # events in a call of `choose`


class Chooser(Protocol):
    """A system as the candidate protocol needs it."""

    def keeping_vectors(self) -> AbstractContextManager[None]:
        """Within the block all draws share what the system reads of the users."""
        ...

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """Column (B,) of the chosen item in candidates (B, C); -1 for an answer that names none."""
        ...


def measure_choices(
    model: Chooser,
    dataset: Dataset | str | Path,
    part: Literal["validation", "test"] = "test",
    candidates: int = 20,
    draws: int = 5,
    seed: int = 0,
    by: str = "scores",
    *,
    users: Sequence[int] | np.ndarray | None = None,
    accelerator: "Accelerator | None" = None,
) -> Measurement:
    """The candidate protocol: is the held-out item chosen among itself and items drawn at random?

    Each held-out event is shown with `draws` sets of candidates. The drawn items are none of the user's
    input, masked and held-out items, and no two candidates share a title.

    Args:
        model: any system.
        dataset, part, users, accelerator: as in `measure`; events in whole batches are shared.
        candidates: size of a set, the held-out item included.
        draws: sets per event, over which its values are averaged.
        seed: of the draws: the same sets for every system.
        by: how the system chooses (`Recommender.choose`).

    Returns:
        `hit_ratio@1`, its `standard_error` over events, and `valid_ratio`, the share of answers that name a
        candidate. `per_user` and `users` have one value per event.

    Raises:
        ValueError: an argument is wrong, an event is input too (`LeakError`), or items or events are too few.
    """
    dataset = as_dataset(dataset)
    candidates, draws, seed = _checked_numbers(dataset.n_items, candidates=candidates, draws=draws, seed=seed)
    protocol = AMONG_CANDIDATES.format(candidates=candidates, draws=counted(draws, "draw"), seed=seed)
    measured_as = conditions(dataset, part, protocol)
    began = time.perf_counter()
    task = audited_task(model, dataset, part)
    events, groups = task.held_out.interactions, title_groups(task.held_out.items)
    measured, n_without_history = _measured_events(task, users)
    sources = [source.interactions for source in (task.input, task.masked, task.held_out)]
    shared_events = measured[share(len(measured), EVENTS_AT_ONCE, accelerator)]
    event_users, targets = events.users[shared_events], events.items[shared_events]  # (n,)
    excluded = [np.concatenate([source.history(user) for source in sources]) for user in event_users.tolist()]
    results = np.empty((2, draws, len(shared_events)))  # hit and valid
    cases = list(zip(event_users.tolist(), targets.tolist(), excluded, strict=True))
    with model.keeping_vectors():
        for draw in range(draws):
            shown = _drawn(cases, groups, candidates, seed, draw)  # (n, candidates)
            choice = _choose(model, event_users, shown, task.input, by)  # (n,), -1 for none
            valid = choice >= 0
            results[:, draw] = valid & (shown[np.arange(len(choice)), choice] == targets), valid
    hits, valids = np.concatenate(gathered(results.mean(1), accelerator), axis=1)  # (n_measured,)
    per_event = {"hit_ratio@1": hits, "valid_ratio": valids}
    metrics = {name: float(values.mean()) for name, values in per_event.items()}
    metrics[STANDARD_ERROR] = _standard_error(hits)
    seconds = time.perf_counter() - began
    return Measurement(measured_as, metrics, per_event, events.users[measured], n_without_history, seconds)


def _drawn(
    cases: Sequence[tuple[int, int, np.ndarray]], groups: np.ndarray, candidates: int, seed: int, draw: int
) -> np.ndarray:
    """Sets of candidates, int64 (n, candidates), of n cases: user, held-out item, and known items."""
    sets = [draw_candidates(item, known, groups, candidates, seed, draw, user) for user, item, known in cases]
    return np.array(sets, dtype=np.int64).reshape(-1, candidates)


def _measured_events(task: Task, users: Sequence[int] | np.ndarray | None) -> tuple[np.ndarray, int]:
    """Rows of the held-out events of the selected users with a history; and how many have none.

    Raises:
        ValueError: no event has a history.
    """
    event_users = task.held_out.interactions.users
    requested = selected_users(users, task.input.n_users)[event_users]  # (n,)
    measured = np.flatnonzero(requested & (np.diff(task.input.interactions.indptr)[event_users] > 0))
    if not len(measured):
        raise ValueError(NOTHING_TO_MEASURE)
    return measured, int(requested.sum()) - len(measured)


def _checked_numbers(n_items: int, **arguments: int) -> list[int]:
    """`candidates`, `draws` and `seed` as ints.

    Raises:
        ValueError: one is no whole number, or sets of candidates cannot be drawn and measured.
    """
    for name, value in arguments.items():
        try:
            arguments[name] = operator.index(value)
        except TypeError:
            raise ValueError(f"`{name}` is {shorten(escaped(repr(value)))}: give a whole number") from None
    candidates, draws, seed = arguments.values()
    if candidates < 2 or draws < 1:
        raise ValueError(
            f"`candidates` is {candidates} and `draws` is {draws}, which cannot be measured: take at least 2 "
            "and 1"
        )
    if candidates > n_items:
        raise ValueError(
            f"{candidates} candidates are asked for, and there are {n_items} items: ask for fewer"
        )
    return [candidates, draws, seed]


def _choose(model: Chooser, users: np.ndarray, shown: np.ndarray, seen: Dataset, by: str) -> np.ndarray:
    """Choices (n,) of users (n,) among candidates (n, C), in batches of `EVENTS_AT_ONCE`."""
    batches = [slice(start, start + EVENTS_AT_ONCE) for start in range(0, len(users), EVENTS_AT_ONCE)]
    choices = [model.choose(users[batch], shown[batch], seen, by) for batch in batches]
    return np.concatenate([np.empty(0, dtype=np.int64), *choices])


def _standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values (n,); 0 for one value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
