"""Ranking metrics over the whole catalogue, and `measure`: one protocol for every system."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from cllm4rec.data.candidates import draw_candidates, title_groups
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.metrics import PER_USER
from cllm4rec.ranking import top_k

PROTOCOL = (
    "full ranking of the catalogue, known items masked; recall@k = hits / min(k, n held out); "
    "users without held-out items or without a history left out; ties ordered by a hash of the item id"
)
AMONG_CANDIDATES = (
    "the held-out item among {candidates} candidates, the others drawn at random from items the user is not known to have, no "
    "two of one title; {draws} draws of them averaged (seed {seed}); chosen by {by}"
)

SCORES_AT_ONCE = 1 << 26  # numbers: 256 MiB in float32


class Scorer(Protocol):
    """What `measure` needs of a system."""

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores (B, n_items) of users (B,) with the histories in `seen`; higher is better."""
        ...


class Chooser(Scorer, Protocol):
    """What it needs for the candidate protocol."""

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """Places (B,) in candidates (B, C), -1 for an answer that names none."""
        ...


@dataclass(frozen=True)
class Measurement:
    """Result of `measure`.

    Attributes:
        metrics: name -> mean over users (coverage@20: share of the catalogue).
        per_user: name -> float64 (n_users_measured,), rows as `users`.
        users: numbers of the users that had held-out items.
        n_without_history: users with held-out items that were left out, as they have no event to go by.
        seconds: wall time of scoring and ranking.
    """

    metrics: dict[str, float]
    per_user: dict[str, np.ndarray]
    users: np.ndarray
    n_without_history: int
    seconds: float


def rank_of(scores: np.ndarray, rows: np.ndarray, items: np.ndarray, tie_order: np.ndarray) -> np.ndarray:
    """Ranks (0 is best) of chosen items within their rows, int64 (n,), by counting; ties as in `top_k`.

    Args:
        scores: (B, n_items), masked items at -inf.
        rows, items: (n,) which cells to rank.
    """
    ranks = np.empty(len(rows), dtype=np.int64)
    chunk = max(1, 4_000_000 // scores.shape[1])
    for start in range(0, len(rows), chunk):
        row, item = rows[start : start + chunk], items[start : start + chunk]
        line, own = scores[row], scores[row, item][:, None]
        before, tied = np.count_nonzero(line > own, axis=1), line == own
        for i in np.flatnonzero(np.count_nonzero(tied, axis=1) > 1):
            before[i] += np.count_nonzero(tie_order[tied[i]] < tie_order[item[i]])
        ranks[start : start + chunk] = before
    return ranks


def mask_known(scores: np.ndarray, users: np.ndarray, known: Interactions) -> np.ndarray:
    """A copy of the scores (B, n_items) with each user's known items at -inf."""
    histories = known.histories(users)
    masked = np.array(scores, dtype=np.float32)
    if np.isnan(masked).any():
        raise ValueError(
            "the scores hold NaN: the model has diverged; train it again with a lower learning rate"
        )
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
    """Rank the whole catalogue for every user with held-out items; or, with `candidates`, see whether a held-out item is
    chosen among itself and others drawn at random (`measure_choices`, which takes the further arguments).

    Args:
        model: any system.
        seen: the events it may look at (evaluation: the training events).
        held_out: the events to find.
        masked: events whose items are left out of the ranking; `seen` if not given (testing: train and validation).
        users: numbers of the users to measure; all if not given. Those without a held-out item or without any event in
            `seen` are left out: there is nothing to find, or nothing to go by.
        batch_size: most users scored at a time; fewer where the catalogue is large.

    Raises:
        ValueError: nobody is left.
    """
    if candidates is not None:
        return measure_choices(
            cast(Chooser, model), seen, held_out, masked, users, candidates, draws, seed, by
        )
    began = time.perf_counter()
    known = (masked or seen).interactions
    wanted = np.arange(held_out.n_users) if users is None else np.asarray(users)
    wanted = wanted[np.diff(held_out.interactions.indptr)[wanted] > 0]
    n_held_out, wanted = len(wanted), wanted[np.diff(seen.interactions.indptr)[wanted] > 0]
    if users is None and not len(wanted):
        raise ValueError("no user has a held-out item and a history: there is nothing to measure")
    per_user = {name: np.zeros(len(wanted)) for name in PER_USER}
    shown = np.zeros(held_out.n_items, dtype=bool)
    batch_size = max(1, min(batch_size, SCORES_AT_ONCE // held_out.n_items))
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        scores = mask_known(model.score(batch, seen), batch, known)
        targets = held_out.interactions.histories(batch)
        ranks = rank_of(scores, targets.rows, targets.values, held_out.tie_order)
        for name, metric in PER_USER.items():
            per_user[name][start : start + len(batch)] = metric(ranks, targets.starts)
        best = top_k(scores, 20, held_out.tie_order)
        shown[best[best >= 0]] = True
    metrics = {name: float(values.mean()) if len(values) else 0.0 for name, values in per_user.items()}
    metrics["coverage@20"] = float(shown.mean())
    return Measurement(metrics, per_user, wanted, n_held_out - len(wanted), time.perf_counter() - began)


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
    """The candidate protocol: is the held-out item chosen among itself and others drawn at random?

    Candidates are none of the user's items in `seen`, `masked` and `held_out`, and no two share a title. Each held-out event
    is a row, shown with `draws` sets of candidates.

    Args:
        model: any system.
        seen, held_out, masked, users: as `measure` takes them.
        candidates: items to choose from, the held-out one among them.
        draws: sets of candidates of a row, over which its values are means.
        seed: of the draws: the same sets for every system.
        by: how the system chooses (`Recommender.choose`).

    Returns:
        `hit_ratio@1`, `valid_ratio` (share of answers that name a candidate) and `standard_error` of the former over rows;
        `per_user` and `users` hold a value a row.

    Raises:
        ValueError: nobody can be measured, or there are too few items to draw from.
    """
    began = time.perf_counter()
    if candidates < 2 or draws < 1:
        raise ValueError(
            f"candidates is {candidates} and draws {draws}, which cannot be measured: take at least 2 and 1"
        )
    if candidates > held_out.n_items:
        raise ValueError(
            f"{candidates} candidates are asked for, and there are {held_out.n_items} items: ask for fewer"
        )
    events, groups = held_out.interactions, title_groups(held_out.items)
    wanted = np.ones(len(events), dtype=bool) if users is None else np.isin(events.users, users)
    rows = np.flatnonzero(wanted & (np.diff(seen.interactions.indptr)[events.users] > 0))
    if not len(rows):
        raise ValueError("no user has a held-out item and a history: there is nothing to measure")
    users, targets = events.users[rows], events.items[rows]
    parts = [part.interactions for part in (seen, masked or seen, held_out)]
    known = [np.concatenate([part.history(int(user)) for part in parts]) for user in users]
    chosen = np.empty((draws, len(rows)))
    valid = np.empty((draws, len(rows)))
    for draw in range(draws):
        pairs = enumerate(zip(users.tolist(), targets.tolist(), strict=True))
        sets = [
            draw_candidates(item, known[row], groups, candidates, seed, draw, user)
            for row, (user, item) in pairs
        ]
        shown = np.stack(sets)
        for start in range(0, len(rows), 512):
            part = slice(start, start + 512)
            choice = model.choose(users[part], shown[part], seen, by)
            valid[draw, part] = choice >= 0
            chosen[draw, part] = (choice >= 0) & (
                shown[part][np.arange(len(choice)), choice] == targets[part]
            )
    per_user = {"hit_ratio@1": chosen.mean(0), "valid_ratio": valid.mean(0)}
    metrics = {name: float(values.mean()) for name, values in per_user.items()}
    metrics["standard_error"] = (
        float(per_user["hit_ratio@1"].std(ddof=1) / np.sqrt(len(rows))) if len(rows) > 1 else 0.0
    )
    return Measurement(metrics, per_user, users, int(wanted.sum()) - len(rows), time.perf_counter() - began)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of the mean over users; of two systems, pass the paired differences."""
    values = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
