"""Ranking metrics at a list length k; `measure`, and so the command `evaluate`, reads the three tables.

To add a metric, write a function and its line in the table of its kind.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cllm4rec.messages import escaped, shorten

NOT_LISTED = np.iinfo(np.int64).max  # rank of an item that is not in the list
LONGEST_LIST = 10**9
POPULAR_ITEMS = 5  # one item in five is popular


def recall(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Hits in the top k / min(k, number of held-out items): at most 1 for every user.

    Source: Liang et al., "Variational Autoencoders for Collaborative Filtering", 2018, section 4.2.

    Args:
        ranks: int64 (n,), 0 is best: ranks of the held-out items of B users, those of a user adjacent;
            `NOT_LISTED` for an item outside the list.
        starts: int64 (B,), index in `ranks` of each user's first item; every user has at least one.
        k: length of the list.

    Returns:
        One value per user, float64 (B,). The other metrics of ranks have the same arguments and result.
    """
    hits = np.add.reduceat((ranks < k).astype(np.float64), starts)
    return hits / np.minimum(k, np.diff(starts, append=len(ranks)))


def ndcg(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain with binary relevance: DCG / its highest possible value.

    DCG = sum of 1 / log2(rank + 2) over the hits in the top k, ranks from 0. Source: Järvelin and
    Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002.
    """
    gains = np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)
    n_relevant = np.minimum(k, np.diff(starts, append=len(ranks)))
    best_gains = 1.0 / np.log2(np.arange(n_relevant.max(initial=1)) + 2.0)
    ideal = np.cumsum(best_gains)  # gain of 1, 2 ... hits at the top
    return np.add.reduceat(gains, starts) / ideal[n_relevant - 1]


def hit_rate(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """1 if any held-out item is in the top k, else 0.

    Source: Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", 2004.
    """
    return np.maximum.reduceat((ranks < k).astype(np.float64), starts)


def mrr(ranks: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Reciprocal rank, from 1, of the best held-out item; 0 if none is in the top k.

    Source: Voorhees, "The TREC-8 Question Answering Track Report", 1999.
    """
    best = np.minimum.reduceat(ranks, starts)
    return np.where(best < k, 1.0 / (best + 1.0), 0.0)


@dataclass(frozen=True)
class TrainingEvents:
    """The training events, and how often the items occur in them.

    Attributes:
        users: int64 (n,), user of each event.
        items: int64 (n,), item of each event.
        tie_order: int64 (n_items,), distinct; orders items with equally many events.
    """

    users: np.ndarray
    items: np.ndarray
    tie_order: np.ndarray

    @cached_property
    def events_of_items(self) -> np.ndarray:
        """Events of each item, int64 (n_items,)."""
        return np.bincount(self.items, minlength=len(self.tie_order))

    @cached_property
    def information(self) -> np.ndarray:
        """Self-information of the items, float64 (n_items,): -log2 of the share of users with the item."""
        n_items, n_users = len(self.tie_order), len(np.unique(self.users))
        distinct = np.unique(self.users * n_items + self.items)  # a number for each user and item
        users_of_items = np.bincount(distinct % n_items, minlength=n_items)
        return np.log2(max(n_users, 1)) - np.log2(np.maximum(users_of_items, 1))

    @cached_property
    def is_popular(self) -> np.ndarray:
        """Float64 (n_items,): 1 for the ceil(n_items / 5) items with the most events, else 0."""
        best_first = np.lexsort((self.tie_order, -self.events_of_items))
        popular = np.zeros(len(best_first))
        popular[best_first[: -(-len(popular) // POPULAR_ITEMS)]] = 1.0
        return popular


def novelty(lists: np.ndarray, training: TrainingEvents) -> np.ndarray:
    """Mean self-information of the listed items in bits, -log2(users with the item / users).

    Both are users with training events. An item without any counts as an item of one user. An empty list
    has novelty 0. Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender
    systems", 2010.

    Args:
        lists: int64 (B, k), items, best first; -1 after the last.
        training: the training events.

    Returns:
        One value per user, float64 (B,). The other metrics of lists have the same arguments and result.
    """
    return _mean_of_lists(training.information, lists)


def popularity_share(lists: np.ndarray, training: TrainingEvents) -> np.ndarray:
    """Share of each list (B, k) that is among the 20 % of items with the most training events, float64 (B,).

    These are ceil(n_items / 5) items of the catalogue. Equal numbers of events are ordered by
    `tie_order`. An empty list has share 0. Source: 1 - APLT (average percentage of long-tail items) of
    Abdollahpouri, Burke and Mobasher, "Managing Popularity Bias in Recommender Systems with Personalized
    Re-ranking", 2019.
    """
    return _mean_of_lists(training.is_popular, lists)


def _mean_of_lists(values: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Mean of item values (n_items,) over each list (B, k), float64 (B,); 0 for an empty list."""
    listed = lists >= 0
    return np.where(listed, values[lists], 0.0).sum(1) / np.maximum(listed.sum(1), 1)


def gini(occurrences: np.ndarray) -> float:
    """Gini index: 0 if all items are listed equally often, 1 if one item has all occurrences.

    G = sum of (2 j - n - 1) x_j / ((n - 1) sum of x_j), where x_1 <= ... <= x_n are the numbers of lists
    that hold each of the n items of the catalogue. Source: Shani and Gunawardana, "Evaluating
    Recommendation Systems", 2011, section 3.3.

    Args:
        occurrences: int64 (n_items,), number of lists that hold the item.
    """
    n, total = len(occurrences), int(occurrences.sum())
    if n < 2 or not total:
        return 0.0
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ np.sort(occurrences) / ((n - 1) * total))


def coverage(occurrences: np.ndarray) -> float:
    """Share of the catalogue that is in any list; the argument is that of `gini`.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond Accuracy: Evaluating Recommender Systems by
    Coverage and Serendipity", 2010.
    """
    return float((occurrences > 0).mean())


OF_RANKS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "hit_rate": hit_rate,
    "mrr": mrr,
}
OF_LISTS: dict[str, Callable[[np.ndarray, TrainingEvents], np.ndarray]] = {
    "novelty": novelty,
    "popularity_share": popularity_share,
}
OF_CATALOGUE: dict[str, Callable[[np.ndarray], float]] = {"gini": gini, "coverage": coverage}
FAMILIES = (*OF_RANKS, *OF_LISTS, *OF_CATALOGUE)
KS = (10, 20, 40, 100)


@dataclass(frozen=True)
class Metric:
    """A metric at a list length, as in `recall@20`."""

    family: str
    k: int

    def __str__(self) -> str:
        return f"{self.family}@{self.k}"


def requested_metrics(metrics: Sequence[str] = FAMILIES, ks: Sequence[int] = KS) -> list[Metric]:
    """The metrics of some names, each once.

    Args:
        metrics: families, which are measured at all `ks`, and full names such as `ndcg@100`.
        ks: list lengths.

    Raises:
        ValueError: a name is unknown, a list length is out of range or no whole number, there is no metric,
            or an argument is no list.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise ValueError(f"`metrics` is {shorten(escaped(repr(metrics)))}: give a list, as in ['ndcg@100']")
    lengths = _list_lengths(ks)
    found: list[Metric] = []
    for name in metrics:
        family, at, k = str(name).partition("@")
        if family not in FAMILIES or (at and not k.isdecimal()):
            raise ValueError(
                f"`metrics` holds {name!r}, which is unknown: take {', '.join(FAMILIES)}, or one with a list "
                "length, as in ndcg@100"
            )
        found += [Metric(family, int(k))] if at else [Metric(family, each) for each in lengths]
    for metric in found:
        if not 1 <= metric.k <= LONGEST_LIST:
            raise ValueError(f"{metric} cannot be measured: a list has 1 to {LONGEST_LIST:,} items")
    if not found:
        raise ValueError("`metrics` and `ks` name no metric: give at least one of each")
    return list(dict.fromkeys(found))


def _list_lengths(ks: Sequence[int]) -> list[int]:
    """List lengths as ints.

    Raises:
        ValueError: they are no list of whole numbers.
    """
    try:
        return [operator.index(k) for k in ks]
    except TypeError:
        raise ValueError(
            f"`ks` is {shorten(escaped(repr(ks)))}: give a list of whole numbers, as in [10, 100]"
        ) from None
