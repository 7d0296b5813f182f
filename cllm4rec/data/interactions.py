"""Events as arrays: user and item numbers, times and reviews."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp

from cllm4rec.data.ragged import Ragged


@dataclass(frozen=True)
class Interactions:
    """Events sorted by user and, within a user, by time.

    Attributes:
        users: int64 (n,), ascending.
        items: int64 (n,).
        n_users, n_items: numbers of users and items, those without an event included.
        times: int64 (n,) in seconds; None where the data has none. Rows of a user are in time order anyway.
        reviews: one text per event (n,), "" for none; None where the data has none.
    """

    users: np.ndarray
    items: np.ndarray
    n_users: int
    n_items: int
    times: np.ndarray | None = None
    reviews: pl.Series | None = None

    def __post_init__(self) -> None:
        for kind, numbers, n in (("user", self.users, self.n_users), ("item", self.items, self.n_items)):
            if len(numbers) and not (0 <= numbers.min() and numbers.max() < n):
                worst = numbers.max() if numbers.max() >= n else numbers.min()
                raise ValueError(f"{kind} number {worst} is out of range: there are {n} {kind}s")
        if (np.diff(self.users) < 0).any():
            raise ValueError("events are not sorted by user: sort them by user and time first")

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def indptr(self) -> np.ndarray:
        """int64 (n_users + 1,): the events of user u are rows indptr[u] .. indptr[u+1]."""
        return np.searchsorted(self.users, np.arange(self.n_users + 1))

    @cached_property
    def item_has_event(self) -> np.ndarray:
        """Whether each item has an event, bool (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items) > 0

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        """Binary float32 matrix (n_users, n_items) with sorted indices."""
        ones = np.ones(len(self), dtype=np.float32)
        matrix = sp.csr_matrix((ones, (self.users, self.items)), shape=(self.n_users, self.n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix

    def decayed(self, users: np.ndarray, decay: float) -> sp.csr_matrix:
        """Histories of users (B,), float32 (B, n_items), of weights that decay with age.

        The weight is decay ** (number of later events of the user). Of repeated events the newest counts.
        """
        histories = self.histories(users)
        rows, items = histories.rows, histories.values
        ages = np.repeat(np.cumsum(histories.lengths), histories.lengths) - 1 - np.arange(len(items))
        weights = np.power(decay, ages, dtype=np.float32)
        order = np.lexsort((-weights, items, rows))  # by user, item, then newest first
        newest = np.ones(len(items), dtype=bool)
        newest[1:] = (np.diff(rows[order]) != 0) | (np.diff(items[order]) != 0)
        kept = order[newest]
        return sp.csr_matrix((weights[kept], (rows[kept], items[kept])), shape=(len(users), self.n_items))

    def history(self, user: int) -> np.ndarray:
        """Items of one user in time order, int64."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def histories(self, users: np.ndarray) -> Ragged:
        """Items of users (B,), one row per user, in time order."""
        starts, lengths = self.indptr[users], self.indptr[users + 1] - self.indptr[users]
        # Index of an event = its index in the result + (start of its user here - start of its row there).
        offsets = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return Ragged(self.items[np.arange(lengths.sum()) + offsets], lengths)

    def select(self, keep: np.ndarray) -> "Interactions":
        """The events where the mask `keep` (n,) is True; the numbers of users and items stay."""
        return Interactions(
            self.users[keep],
            self.items[keep],
            self.n_users,
            self.n_items,
            None if self.times is None else self.times[keep],
            None if self.reviews is None else self.reviews.filter(pl.Series(keep)),
        )
