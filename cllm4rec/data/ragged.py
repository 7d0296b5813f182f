"""Rows of unequal length as one flat array."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """B lists in one flat array: `values` (total,), `lengths` (B,)."""

    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def constant(cls, values: np.ndarray, n: int) -> "Ragged":
        """The same list n times."""
        return cls(np.tile(values, n), np.full(n, len(values), dtype=np.int64))

    @classmethod
    def single(cls, values: np.ndarray, present: np.ndarray | None = None) -> "Ragged":
        """One value a row, or none where `present` is False."""
        if present is None:
            return cls(values, np.ones(len(values), dtype=np.int64))
        return cls(values[present], present.astype(np.int64))

    @classmethod
    def from_lists(cls, lists: Sequence[np.ndarray]) -> "Ragged":
        lengths = np.array([len(one) for one in lists], dtype=np.int64)
        return cls(np.concatenate([*lists, np.empty(0, dtype=np.int64)]).astype(np.int64), lengths)

    @cached_property
    def rows(self) -> np.ndarray:
        """Row of each value (total,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def starts(self) -> np.ndarray:
        """Place of each row's first value (B,)."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def positions(self) -> np.ndarray:
        """Place of each value within its row (total,)."""
        return self.indices_from(np.zeros_like(self.lengths))

    def indices_from(self, begin: np.ndarray) -> np.ndarray:
        """Where each value comes to stand (total,) if the rows begin there (B,)."""
        return np.arange(len(self.values)) + np.repeat(begin - self.starts, self.lengths)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Some of the rows, in the order asked for."""
        lengths = self.lengths[rows]
        offsets = np.repeat(self.starts[rows] - np.cumsum(lengths) + lengths, lengths)
        return Ragged(self.values[np.arange(lengths.sum()) + offsets], lengths)

    def ordered(self, keys: np.ndarray) -> "Ragged":
        """Each row sorted by its keys (total,), uint64; keys that differ in their lowest bits alone count as equal."""
        bits = np.uint64(
            len(self.lengths).bit_length()
        )  # that the number of a row takes: one key for both sorts much faster
        both = (self.rows.astype(np.uint64) << (np.uint64(64) - bits)) | (keys >> bits)
        return Ragged(self.values[np.argsort(both, kind="stable")], self.lengths)

    def where(self, keep: np.ndarray) -> "Ragged":
        """The values where the mask (total,) holds, rows as they were."""
        return Ragged(self.values[keep], np.bincount(self.rows[keep], minlength=len(self.lengths)))

    def none(self) -> "Ragged":
        """As many rows, all empty."""
        return Ragged(self.values[:0], np.zeros_like(self.lengths))

    def first(self, n: int | np.ndarray) -> "Ragged":
        """At most the first n values of each row."""
        if (self.lengths <= n).all():
            return self
        return self.where(self.positions < np.broadcast_to(n, self.lengths.shape)[self.rows])

    def last(self, n: int) -> "Ragged":
        """At most the last n values of each row."""
        if (self.lengths <= n).all():
            return self
        return self.where(self.positions >= (self.lengths - n)[self.rows])
