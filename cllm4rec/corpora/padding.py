"""Lists of unequal length as one flat array: what batches are put together from, without a loop over rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from cllm4rec.data.ragged import Ragged

Batch = dict[str, torch.Tensor]
PADDING = 0.1  # share of the positions that may be padding before rows are computed in parts of like length
WORTH_A_PASS = 1024  # tokens: for fewer a pass of their own takes longer than the padding that it saves


@dataclass(frozen=True)
class BatchGroup:
    """Rows of several batches side by side, so that what is the same for all is done once.

    Attributes:
        sizes: (P,) rows of each batch, one at least.
    """

    sizes: np.ndarray

    @cached_property
    def first(self) -> np.ndarray:
        """The first row of each batch (P,)."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def of(self) -> np.ndarray:
        """The batch of each row (B,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def counts(self, rows: Ragged) -> np.ndarray:
        """How many values each batch has (P,)."""
        return np.add.reduceat(rows.lengths, self.first)

    def rows_of(self, rows: Ragged) -> np.ndarray:
        """Of each value its row within its batch (total,)."""
        return np.repeat(np.arange(len(self.of)) - self.first[self.of], rows.lengths)

    def split(self, array: np.ndarray, counts: np.ndarray) -> tuple[torch.Tensor, ...]:
        """What belongs to each batch, `counts` (P,) numbers each: views of one tensor."""
        return torch.from_numpy(np.ascontiguousarray(array)).split(counts.tolist())


def pad_batches(rows: Ragged, parts: BatchGroup) -> tuple[list[torch.Tensor], list[torch.Tensor], np.ndarray]:
    """`pad` of each batch: its tokens and mask (B, L), and the flat place (row * L + column) at which each row begins (B,)."""
    widths = np.maximum(1, np.maximum.reduceat(rows.lengths, parts.first))
    wide = widths[parts.of]
    begin = (np.arange(len(parts.of)) - parts.first[parts.of]) * wide
    positions = parts.sizes * widths
    ends = np.stack([rows.lengths, wide - rows.lengths], axis=1).ravel()  # a row's tokens, then its padding
    mask = np.repeat(np.tile([True, False], len(wide)), ends)
    flat = np.zeros(len(mask), dtype=np.int64)
    flat[mask] = rows.values
    shapes = list(zip(parts.sizes.tolist(), widths.tolist(), strict=True))
    tokens, masks = (
        [one.view(shape) for one, shape in zip(parts.split(array, positions), shapes, strict=True)]
        for array in (flat, mask)
    )
    return tokens, masks, begin


def join(pieces: Sequence[Ragged]) -> tuple[Ragged, list[np.ndarray]]:
    """Rows side by side as one row each, and for each piece where it begins in them (B,).

    Example: pieces [[1], [2]] and [[10, 11], []] give rows [[1, 10, 11], [2]], and begin at [0, 0] and [1, 1].
    """
    lengths = np.sum([piece.lengths for piece in pieces], axis=0)
    starts, begin = np.cumsum(lengths) - lengths, np.zeros(len(lengths), dtype=np.int64)
    values, begins = np.empty(lengths.sum(), dtype=np.int64), []
    for piece in pieces:
        values[piece.indices_from(starts + begin)] = piece.values
        begins.append(begin)
        begin = begin + piece.lengths
    return Ragged(values, lengths), begins


def pad(rows: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded on the right: tokens int64 (B, L), 0 at padding, and their mask bool (B, L), True at tokens."""
    mask = np.arange(max(1, int(rows.lengths.max(initial=0))))[None, :] < rows.lengths[:, None]
    tokens = np.zeros(mask.shape, dtype=np.int64)
    tokens[mask] = rows.values
    return tokens, mask


def assemble(pieces: Sequence[Ragged]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Join pieces side by side and pad.

    Returns:
        tokens, mask: as `pad` gives them.
        places: for each piece the flat places (row * L + column) of its values.

    Example: pieces [[1], [2]] and [[10, 11], []] give tokens [[1, 10, 11], [2, 0, 0]].
    """
    rows, begins = join(pieces)
    tokens, mask = pad(rows)
    line = np.arange(len(tokens)) * tokens.shape[1]
    return (
        tokens,
        mask,
        [piece.indices_from(line + begin) for piece, begin in zip(pieces, begins, strict=True)],
    )


def batches_by_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Rows in batches of like length, each of at most `tokens` padded tokens (or one row), no more than a share of PADDING of
    them padding unless the batch is small."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].tolist()
    batches, begin, filled = [], 0, 0
    for end, length in enumerate(ordered):
        positions = (end + 1 - begin) * length
        wasteful = filled >= WORTH_A_PASS and positions - filled - length > PADDING * positions
        if end > begin and (positions > tokens or wasteful):
            batches.append(order[begin:end])
            begin, filled = end, 0
        filled += length
    return [*batches, order[begin:]] if len(order) else []


def cut_by_length(rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows in two parts, the short ones and the long ones, such that padding is least; the first part is empty where all
    of them together are padded by no more than a share of PADDING.

    Args:
        rows: (B,) which of the lengths.
    """
    order = np.argsort(lengths[rows], kind="stable")
    own = lengths[rows][order]
    n, longest = len(own), int(own.max(initial=0))
    if own.sum() >= (1 - PADDING) * n * longest:
        return rows[:0], rows
    first = np.arange(1, n)  # rows of the first part
    best = 1 + int(np.argmin(first * own[:-1] + (n - first) * longest))
    return rows[order[:best]], rows[order[best:]]
