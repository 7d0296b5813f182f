"""Rows of unequal length as one flat array."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... of each row, `length` numbers each, as one array (total,).

    Example: starts [7, 0] and lengths [2, 3] give [7, 8, 0, 1, 2].

    Args:
        starts: int64 (B,).
        lengths: int64 (B,).
    """
    offsets = starts - np.cumsum(lengths) + lengths
    return np.arange(lengths.sum()) + np.repeat(offsets, lengths)


@dataclass(frozen=True)
class Ragged:
    """B rows in one flat array: `values` (total,), `lengths` (B,)."""

    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def repeated(cls, values: np.ndarray, n: int) -> "Ragged":
        """The same row n times."""
        return cls(np.tile(values, n), np.full(n, len(values), dtype=np.int64))

    @classmethod
    def singles(cls, values: np.ndarray, present: np.ndarray | None = None) -> "Ragged":
        """One value a row, or none where the mask `present` (B,) is False."""
        if present is None:
            return cls(values, np.ones(len(values), dtype=np.int64))
        return cls(values[present], present.astype(np.int64))

    @classmethod
    def from_lists(cls, lists: Sequence[np.ndarray]) -> "Ragged":
        """Each array as a row."""
        lengths = np.array([len(values) for values in lists], dtype=np.int64)
        return cls(np.concatenate([*lists, np.empty(0, dtype=np.int64)]).astype(np.int64), lengths)

    @cached_property
    def rows(self) -> np.ndarray:
        """Row of each value (total,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def starts(self) -> np.ndarray:
        """Index of each row's first value (B,)."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def positions(self) -> np.ndarray:
        """Position of each value within its row (total,)."""
        return ranges(np.zeros_like(self.lengths), self.lengths)

    @cached_property
    def last_in_row(self) -> np.ndarray:
        """Mask (total,) of each row's last value."""
        return self.positions == (self.lengths - 1)[self.rows]

    def take(self, rows: np.ndarray) -> "Ragged":
        """The rows of these numbers, in this order."""
        lengths = self.lengths[rows]
        return Ragged(self.values[ranges(self.starts[rows], lengths)], lengths)

    def sorted_by(self, keys: np.ndarray) -> "Ragged":
        """Each row sorted by its keys (total,), uint64. The lowest bits of the keys are not compared."""
        # One sort key of 64 bits, row number first, is much faster than a sort by two keys.
        bits = np.uint64(len(self.lengths).bit_length())
        key = (self.rows.astype(np.uint64) << (np.uint64(64) - bits)) | (keys >> bits)
        return Ragged(self.values[np.argsort(key, kind="stable")], self.lengths)

    def filter(self, keep: np.ndarray) -> "Ragged":
        """The values where the mask (total,) holds, in the same rows."""
        return Ragged(self.values[keep], np.bincount(self.rows[keep], minlength=len(self.lengths)))

    def emptied(self) -> "Ragged":
        """As many rows, all empty."""
        return Ragged(self.values[:0], np.zeros_like(self.lengths))

    def first(self, n: int | np.ndarray) -> "Ragged":
        """At most the first n values of each row."""
        if (self.lengths <= n).all():
            return self
        return self.filter(self.positions < np.broadcast_to(n, self.lengths.shape)[self.rows])

    def last(self, n: int) -> "Ragged":
        """At most the last n values of each row."""
        if (self.lengths <= n).all():
            return self
        return self.filter(self.positions >= (self.lengths - n)[self.rows])


def concatenate_rows(pieces: Sequence[Ragged]) -> tuple[Ragged, list[np.ndarray]]:
    """Concatenate row by row: row b of the result is row b of each piece, one after the other.

    Example: pieces [[1], [2]] and [[10, 11], []] give [[1, 10, 11], [2]]; they begin at [0, 0] and [1, 1].

    Returns:
        The rows, and for each piece the position (B,) at which it begins in them.
    """
    lengths = np.sum([piece.lengths for piece in pieces], axis=0)
    starts, begin = np.cumsum(lengths) - lengths, np.zeros(len(lengths), dtype=np.int64)
    values, begins = np.empty(lengths.sum(), dtype=np.int64), []
    for piece in pieces:
        values[ranges(starts + begin, piece.lengths)] = piece.values
        begins.append(begin)
        begin = begin + piece.lengths
    return Ragged(values, lengths), begins
