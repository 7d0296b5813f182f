"""The inverse of an item-item matrix, which linear autoencoders are computed from, without copies of it."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp

MOST_IN_DOUBLE = 25_000  # items; beyond, float64 would take more than 16 GiB
NUMBERS_AT_ONCE = 1 << 22  # of a block of rows


def empty_item_matrix(n_items: int) -> np.ndarray:
    """Space for an item-item matrix (n_items, n_items), float64; beyond MOST_IN_DOUBLE items float32."""
    return np.empty((n_items, n_items), dtype=np.float64 if n_items <= MOST_IN_DOUBLE else np.float32)


def item_inverse(events: sp.csr_matrix, regularization: float, out: np.ndarray) -> np.ndarray:
    """(X^T X + lambda I)^-1, (n_items, n_items).

    Args:
        events: X, (n_users, n_items).
        regularization: lambda.
        out: as of `empty_item_matrix`; the result takes its memory.
    """
    events = events.astype(out.dtype)
    # the product is in columns; its transpose, which is equal, is written by rows without a copy
    (events.T @ events).T.toarray(out=out)
    out[np.diag_indices_from(out)] += regularization
    # both triangles are equal; LAPACK works in place on columns
    inverse = scipy.linalg.inv(out.T, overwrite_a=True, check_finite=False, assume_a="pos")
    return np.asarray(inverse.T)


def blocks_of_rows(n_items: int) -> Iterator[slice]:
    """Ranges of rows of an item-item matrix."""
    n_rows = max(1, NUMBERS_AT_ONCE // n_items)
    for start in range(0, n_items, n_rows):
        yield slice(start, start + n_rows)
