"""`measure_choices`: is the held-out item chosen among candidates?"""

import time
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from cllm4rec.data.candidates import draw_candidates, title_groups
from cllm4rec.data.dataset import Dataset, Task
from cllm4rec.evaluation.measurement import STANDARD_ERROR, Measurement
from cllm4rec.evaluation.processes import NOTHING_TO_MEASURE, gathered, share

if TYPE_CHECKING:  # it imports torch
    from accelerate import Accelerator

AMONG_CANDIDATES = (
    "the held-out item among {candidates} candidates, the others drawn at random from items the user is not "
    "known to have, no two of one title; {draws} of them averaged (seed {seed}); chosen by {by}"
)
EVENTS_AT_ONCE = 512  # events in a call of `choose`


class Chooser(Protocol):
    """A system as the candidate protocol needs it."""

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """Column (B,) of the chosen item in candidates (B, C); -1 for an answer that names none."""
        ...


def measure_choices(
    model: Chooser,
    dataset: Dataset,
    part: Literal["validation", "test"] = "test",
    candidates: int = 20,
    draws: int = 5,
    seed: int = 0,
    by: str = "scores",
    *,
    users: np.ndarray | None = None,
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
        ValueError: no event is left, or too few items to draw from.
    """
    began = time.perf_counter()
    _check_candidates(candidates, draws, dataset.n_items)
    task = dataset.task(part)
    events, groups = task.held_out.interactions, title_groups(task.held_out.items)
    measured, n_without_history = _measured_events(task, users)
    sources = [source.interactions for source in (task.input, task.masked, task.held_out)]
    shared_events = measured[share(len(measured), EVENTS_AT_ONCE, accelerator)]
    event_users, targets = events.users[shared_events], events.items[shared_events]  # (n,)
    excluded = [np.concatenate([source.history(user) for source in sources]) for user in event_users.tolist()]
    hit, valid = np.empty((draws, len(shared_events))), np.empty((draws, len(shared_events)))
    cases = list(zip(event_users.tolist(), targets.tolist(), excluded, strict=True))
    for draw in range(draws):
        sets = [
            draw_candidates(item, known, groups, candidates, seed, draw, user) for user, item, known in cases
        ]
        shown = np.array(sets, dtype=np.int64).reshape(-1, candidates)  # (n, candidates)
        choice = _choose(model, event_users, shown, task.input, by)  # (n,), -1 for none
        valid[draw] = choice >= 0
        hit[draw] = (choice >= 0) & (shown[np.arange(len(choice)), choice] == targets)
    results = gathered((hit.mean(0), valid.mean(0)), accelerator)
    hits, valids = (np.concatenate(values) for values in zip(*results, strict=True))  # (n_measured,)
    per_event = {"hit_ratio@1": hits, "valid_ratio": valids}
    metrics = {name: float(values.mean()) for name, values in per_event.items()}
    metrics[STANDARD_ERROR] = _standard_error(hits)
    seconds = time.perf_counter() - began
    return Measurement(metrics, per_event, events.users[measured], n_without_history, seconds)


def _measured_events(task: Task, users: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Rows of the held-out events, of these or of all users, with a history; and how many have none.

    Raises:
        ValueError: no event has a history.
    """
    event_users = task.held_out.interactions.users
    requested = np.ones(len(event_users), dtype=bool) if users is None else np.isin(event_users, users)
    measured = np.flatnonzero(requested & (np.diff(task.input.interactions.indptr)[event_users] > 0))
    if not len(measured):
        raise ValueError(NOTHING_TO_MEASURE)
    return measured, int(requested.sum()) - len(measured)


def _check_candidates(candidates: int, draws: int, n_items: int) -> None:
    """Raise ValueError unless sets of candidates can be drawn and measured."""
    if candidates < 2 or draws < 1:
        raise ValueError(
            f"`candidates` is {candidates} and `draws` is {draws}, which cannot be measured: take at least 2 "
            "and 1"
        )
    if candidates > n_items:
        raise ValueError(
            f"{candidates} candidates are asked for, and there are {n_items} items: ask for fewer"
        )


def _choose(model: Chooser, users: np.ndarray, shown: np.ndarray, seen: Dataset, by: str) -> np.ndarray:
    """Choices (n,) of users (n,) among candidates (n, C), in batches of `EVENTS_AT_ONCE`."""
    batches = [slice(start, start + EVENTS_AT_ONCE) for start in range(0, len(users), EVENTS_AT_ONCE)]
    choices = [model.choose(users[batch], shown[batch], seen, by) for batch in batches]
    return np.concatenate([np.empty(0, dtype=np.int64), *choices])


def _standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values (n,); 0 for one value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
