"""Padding of ragged rows, without a loop over rows, and batches of rows of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cllm4rec.data.ragged import Ragged, concatenate_rows, ranges

PADDING_SHARE = 0.1  # of the computed positions; above it rows are computed in groups of similar length
FREE_PADDING = 1024  # padded positions of a forward pass that cost less than a further pass


@dataclass(frozen=True)
class BatchGroup:
    """Consecutive rows (B,) of several batches (G,), so that work common to all batches is done once.

    Attributes:
        sizes: int64 (G,), rows of each batch, at least one.
    """

    sizes: np.ndarray

    @cached_property
    def first_rows(self) -> np.ndarray:
        """The first row of each batch (G,)."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def rows_in_batch(self) -> np.ndarray:
        """Number of each row within its batch (B,)."""
        return ranges(np.zeros_like(self.sizes), self.sizes)

    def per_row(self, values: np.ndarray) -> np.ndarray:
        """The value (G,) of each row's batch (B,)."""
        return np.repeat(values, self.sizes)

    def counts(self, rows: Ragged) -> np.ndarray:
        """Number of values in each batch (G,)."""
        return np.add.reduceat(rows.lengths, self.first_rows)

    def value_rows(self, rows: Ragged) -> np.ndarray:
        """Row of each value within its batch (total,)."""
        return np.repeat(self.rows_in_batch, rows.lengths)

    def split(self, array: np.ndarray, counts: np.ndarray) -> tuple[Tensor, ...]:
        """The values of each batch, `counts` (G,) values each: views of one tensor."""
        return torch.from_numpy(np.ascontiguousarray(array)).split(counts.tolist())


def pad(rows: Ragged, group: BatchGroup) -> tuple[list[Tensor], list[Tensor], np.ndarray]:
    """Pad rows (B,) on the right, each batch of a group to its longest row.

    Returns:
        Of each batch its tokens int64 (b, L), 0 at padding, and mask bool (b, L), True at tokens; and the
        flat index (row * L + column) at which each row begins in its batch (B,).
    """
    widths = np.maximum(1, np.maximum.reduceat(rows.lengths, group.first_rows))  # (G,)
    row_widths = group.per_row(widths)  # (B,)
    row_begins = group.rows_in_batch * row_widths
    runs = np.stack(
        [rows.lengths, row_widths - rows.lengths], axis=1
    ).ravel()  # a row's tokens, then its padding
    mask = np.repeat(np.tile([True, False], len(row_widths)), runs)
    tokens = np.zeros(len(mask), dtype=np.int64)
    tokens[mask] = rows.values
    n_positions = group.sizes * widths
    shapes = list(zip(group.sizes.tolist(), widths.tolist(), strict=True))
    padded, masks = (
        [flat.view(shape) for flat, shape in zip(group.split(array, n_positions), shapes, strict=True)]
        for array in (tokens, mask)
    )
    return padded, masks, row_begins


def assemble(pieces: Sequence[Ragged]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Concatenate pieces row by row and pad, as one batch of at least one row.

    Returns:
        tokens, mask: (B, L) as `pad` gives them.
        indices: for each piece the flat indices (row * L + column) of its values.

    Example: pieces [[1], [2]] and [[10, 11], []] give

        tokens  [[1, 10, 11], [2, 0, 0]]
        indices [0, 3] and [1, 2]
    """
    rows, begins = concatenate_rows(pieces)
    (tokens,), (mask,), row_begins = pad(rows, BatchGroup(np.array([len(rows.lengths)])))
    indices = [ranges(row_begins + begin, piece.lengths) for piece, begin in zip(pieces, begins, strict=True)]
    return tokens.numpy(), mask.numpy(), indices


def batches_by_length(lengths: np.ndarray, tokens: int, free_padding: int = FREE_PADDING) -> list[np.ndarray]:
    """Rows in batches of similar length.

    A batch has at most `tokens` positions, or one row. At most `free_padding` of them, or a share of
    PADDING_SHARE if that is more, are padding.
    """
    order = np.argsort(lengths, kind="stable")
    batches, begin, n_tokens = [], 0, 0
    for end, length in enumerate(lengths[order].tolist()):
        n_positions = (end + 1 - begin) * length
        padding = n_positions - n_tokens - length
        wasteful = padding > max(PADDING_SHARE * n_positions, free_padding)
        if end > begin and (n_positions > tokens or wasteful):
            batches.append(order[begin:end])
            begin, n_tokens = end, 0
        n_tokens += length
    return [*batches, order[begin:]] if len(order) else []
