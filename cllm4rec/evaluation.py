"""`measure`: one evaluation protocol for every system, by full ranking or among candidates."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from cllm4rec.data.candidates import draw_candidates, title_groups
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.metrics import PER_USER
from cllm4rec.ranking import DIVERGED, top_k

PROTOCOL = (
    "full ranking of the catalogue, known items masked; recall@k = hits / min(k, n held out); "
    "users without held-out items or without a history left out; ties ordered by a hash of the item id"
)
AMONG_CANDIDATES = (
    "the held-out item among {candidates} candidates, the others drawn at random from items the user is not "
    "known to have, no two of one title; {draws} of them averaged (seed {seed}); chosen by {by}"
)
NOTHING_TO_MEASURE = "no user has a held-out item and a history: there is nothing to measure"

COVERAGE_K = 20  # length of the lists of coverage@20
SCORES_AT_ONCE = 1 << 26  # scores of a batch: 256 MiB in float32
RANKED_AT_ONCE = 4_000_000  # scores compared with those of held-out items at once
EVENTS_AT_ONCE = 512  # events in a call of `choose`
RESAMPLED_AT_ONCE = 1 << 17  # values drawn by the bootstrap: 1 MiB in float64


class Scorer(Protocol):
    """A system as full ranking needs it."""

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores (B, n_items) of users (B,) with the histories in `seen`; higher is better."""
        ...


class Chooser(Scorer, Protocol):
    """A system as the candidate protocol needs it."""

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """Column (B,) of the chosen item in candidates (B, C); -1 for an answer that names none."""
        ...


@dataclass(frozen=True)
class Measurement:
    """Result of `measure`.

    Attributes:
        metrics: name -> mean over users (coverage@20: share of the catalogue).
        per_user: name -> float64 (n_measured,), rows as `users`.
        users: (n_measured,) numbers of the users with held-out items.
        n_without_history: users left out because they have held-out items but no input event.
        seconds: wall time of scoring and ranking.
    """

    metrics: dict[str, float]
    per_user: dict[str, np.ndarray]
    users: np.ndarray
    n_without_history: int
    seconds: float


def rank_of(scores: np.ndarray, rows: np.ndarray, items: np.ndarray, tie_order: np.ndarray) -> np.ndarray:
    """Ranks (0 is best) of n cells within their rows, int64 (n,), by counting; ties as in `top_k`.

    Args:
        scores: (B, n_items), masked items at -inf.
        rows, items: (n,) row and column of the cells.
        tie_order: (n_items,).
    """
    ranks = np.empty(len(rows), dtype=np.int64)
    n_cells = max(1, RANKED_AT_ONCE // scores.shape[1])
    for start in range(0, len(rows), n_cells):
        row, item = rows[start : start + n_cells], items[start : start + n_cells]  # (M,)
        row_scores = scores[row]  # (M, n_items)
        item_score = scores[row, item][:, None]  # (M, 1)
        rank = np.count_nonzero(row_scores > item_score, axis=1)  # (M,) number of better items
        tied = row_scores == item_score  # (M, n_items), True at the item itself
        for cell in np.flatnonzero(np.count_nonzero(tied, axis=1) > 1):
            rank[cell] += np.count_nonzero(tie_order[tied[cell]] < tie_order[item[cell]])
        ranks[start : start + n_cells] = rank
    return ranks


def mask_known(scores: np.ndarray, users: np.ndarray, known: Interactions) -> np.ndarray:
    """A copy of the scores (B, n_items) of users (B,) with their known items at -inf.

    Raises:
        ValueError: a score is NaN.
    """
    histories = known.histories(users)
    masked = np.array(scores, dtype=np.float32)
    if np.isnan(masked).any():
        raise ValueError(DIVERGED)
    masked[histories.rows, histories.values] = -np.inf
    return masked


def measure(
    model: Scorer,
    seen: Dataset,
    held_out: Dataset,
    masked: Dataset | None = None,
    users: np.ndarray | None = None,
    batch_size: int = 512,
    *,
    candidates: int | None = None,
    draws: int = 5,
    seed: int = 0,
    by: str = "scores",
) -> Measurement:
    """Rank the whole catalogue for every user with held-out items.

    With `candidates`, `measure_choices` instead.

    Args:
        model: any system.
        seen: the input events (`Task.input`).
        held_out: the events to predict.
        masked: events whose items are left out of the ranking; `seen` if not given. At test: training and
            validation events.
        users: (n,) numbers of the users to measure; all if not given. Users without an event in `held_out` or
            in `seen` are left out.
        batch_size: most users scored at a time; fewer where the catalogue is large.
        candidates, draws, seed, by: as in `measure_choices`.

    Raises:
        ValueError: no user is left, or a score is NaN.
    """
    if candidates is not None:
        return measure_choices(
            cast(Chooser, model), seen, held_out, masked, users, candidates, draws, seed, by
        )
    began = time.perf_counter()
    known = (masked or seen).interactions
    measured = np.arange(held_out.n_users) if users is None else np.asarray(users)
    measured = measured[np.diff(held_out.interactions.indptr)[measured] > 0]
    n_held_out, measured = len(measured), measured[np.diff(seen.interactions.indptr)[measured] > 0]
    if users is None and not len(measured):
        raise ValueError(NOTHING_TO_MEASURE)
    per_user = {name: np.zeros(len(measured)) for name in PER_USER}
    covered = np.zeros(held_out.n_items, dtype=bool)
    batch_size = max(1, min(batch_size, SCORES_AT_ONCE // held_out.n_items))
    for start in range(0, len(measured), batch_size):
        batch = measured[start : start + batch_size]  # (B,)
        scores = mask_known(model.score(batch, seen), batch, known)  # (B, n_items)
        targets = held_out.interactions.histories(batch)  # B rows of held-out items, n in all
        ranks = rank_of(scores, targets.rows, targets.values, held_out.tie_order)  # (n,)
        for name, metric in PER_USER.items():
            per_user[name][start : start + len(batch)] = metric(ranks, targets.starts)
        best = top_k(scores, COVERAGE_K, held_out.tie_order)  # (B, COVERAGE_K), -1 where the items ran out
        covered[best[best >= 0]] = True
    metrics = {name: float(values.mean()) if len(values) else 0.0 for name, values in per_user.items()}
    metrics[f"coverage@{COVERAGE_K}"] = float(covered.mean())
    return Measurement(metrics, per_user, measured, n_held_out - len(measured), time.perf_counter() - began)


def measure_choices(
    model: Chooser,
    seen: Dataset,
    held_out: Dataset,
    masked: Dataset | None = None,
    users: np.ndarray | None = None,
    candidates: int = 20,
    draws: int = 5,
    seed: int = 0,
    by: str = "scores",
) -> Measurement:
    """The candidate protocol: is the held-out item chosen among itself and items drawn at random?

    Each held-out event is shown with `draws` sets of candidates. The drawn items are none of the user's items
    in `seen`, `masked` and `held_out`, and no two candidates share a title.

    Args:
        model: any system.
        seen, held_out, masked, users: as in `measure`.
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
    _check_candidates(candidates, draws, held_out.n_items)
    events, groups = held_out.interactions, title_groups(held_out.items)
    requested = np.ones(len(events), dtype=bool) if users is None else np.isin(events.users, users)
    measured = np.flatnonzero(requested & (np.diff(seen.interactions.indptr)[events.users] > 0))
    if not len(measured):
        raise ValueError(NOTHING_TO_MEASURE)
    event_users, targets = events.users[measured], events.items[measured]  # (n_measured,)
    sources = (seen.interactions, (masked or seen).interactions, events)
    excluded = [np.concatenate([source.history(user) for source in sources]) for user in event_users.tolist()]
    hit, valid = np.empty((draws, len(measured))), np.empty((draws, len(measured)))
    for draw in range(draws):
        cases = zip(event_users.tolist(), targets.tolist(), excluded, strict=True)
        sets = [
            draw_candidates(item, items, groups, candidates, seed, draw, user) for user, item, items in cases
        ]
        shown = np.stack(sets)  # (n_measured, candidates)
        choice = _choose(model, event_users, shown, seen, by)  # (n_measured,), -1 for none
        valid[draw] = choice >= 0
        hit[draw] = (choice >= 0) & (shown[np.arange(len(choice)), choice] == targets)
    per_event = {"hit_ratio@1": hit.mean(0), "valid_ratio": valid.mean(0)}
    metrics = {name: float(values.mean()) for name, values in per_event.items()}
    metrics["standard_error"] = _standard_error(per_event["hit_ratio@1"])
    n_without_history = int(requested.sum()) - len(measured)
    return Measurement(metrics, per_event, event_users, n_without_history, time.perf_counter() - began)


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
    return np.concatenate([model.choose(users[batch], shown[batch], seen, by) for batch in batches])


def _standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values (n,); 0 for one value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over users (`scipy.stats.bootstrap`).

    Args:
        values: (n,), at least two; to compare two systems, their paired differences.
        seed: of the resampling, by numpy's `default_rng`: equal seeds give equal intervals.
        draws: number of resamples.
    """
    from scipy import stats  # takes half a second, and training does not need it

    result = stats.bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=draws,
        batch=max(1, RESAMPLED_AT_ONCE // len(values)),
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
