"""The users to measure."""

from collections.abc import Sequence

import numpy as np

from cllm4rec.messages import escaped, shorten

NOTHING_TO_MEASURE = "no user has a held-out item and a history: there is nothing to measure"


def selected_users(users: Sequence[int] | np.ndarray | None, n_users: int) -> np.ndarray:
    """Mask (n_users,) of the users to measure: those of some numbers, or all.

    Raises:
        ValueError: `users` is no list of numbers of users, or empty.
    """
    if users is None:
        return np.ones(n_users, dtype=bool)
    numbers = np.asarray(users)
    if not numbers.size:
        raise ValueError(f"`users` is empty: {NOTHING_TO_MEASURE}")
    whole = numbers.ndim == 1 and numbers.dtype.kind in "iu"
    if not whole or numbers.min() < 0 or numbers.max() >= n_users:
        raise ValueError(
            f"`users` is {shorten(escaped(repr(users)))}: give numbers from 0 to {n_users - 1:,}, as "
            "dataset.user_ids.index(ids) returns them"
        )
    return np.isin(np.arange(n_users), numbers)
