"""Checks of the arguments of `rank` and `score`."""

import math
import operator
from typing import Any

import numpy as np

from cllm4rec.data.dataset import Dataset
from cllm4rec.messages import escaped, shorten


def user_numbers(users: Any, n_users: int) -> np.ndarray:
    """User numbers, int64 (B,).

    Raises:
        ValueError: they are no array of whole numbers, or one is not below `n_users`.
    """
    numbers = np.asarray(users)
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise ValueError(
            f"`users` is {shorten(escaped(repr(users)))}: expected an array of user numbers. "
            "dataset.user_ids.index(ids) gives those of ids"
        )
    out_of_range = numbers[(numbers < 0) | (numbers >= n_users)]
    if len(out_of_range):
        raise ValueError(
            f"there is no user {out_of_range[0]} in data of {n_users:,} users: numbers are those of its "
            "user_ids"
        )
    return numbers.astype(np.int64)


def check_events(seen: Any, masked: Any) -> None:
    """Raise ValueError unless two datasets have the same users and items, in the same order."""
    for name, dataset in (("seen", seen), ("masked", masked)):
        if not isinstance(dataset, Dataset):
            raise ValueError(f"`{name}` is of type {type(dataset).__name__}: expected a Dataset")
    for kind in ("user", "item"):
        ids, others = (getattr(dataset, f"{kind}_ids") for dataset in (seen, masked))
        if not ids.is_same(others):
            raise ValueError(f"`masked` has other {kind}s than `seen`, or another order of them")


def list_length(k: Any) -> int:
    """The maximum length of a list.

    Raises:
        ValueError: it is no whole number, or below 1.
    """
    try:
        k = operator.index(k)
    except TypeError:
        raise ValueError(f"`k` is {shorten(escaped(repr(k)))}: expected a whole number of items") from None
    if k < 1:
        raise ValueError(f"`k` is {k}: ask for at least one item")
    return k


def item_mask(excluded_items: Any, n_items: int) -> np.ndarray:
    """A mask of items, bool (n_items,).

    Raises:
        ValueError: it has another shape or type.
    """
    mask = np.asarray(excluded_items)
    if (mask.shape, mask.dtype) != ((n_items,), bool):
        raise ValueError(f"`excluded_items` is {mask.dtype} {mask.shape}: give bool ({n_items},)")
    return mask


def checked_flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        ValueError: it is neither; `name` is that of the argument.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` is {shorten(escaped(repr(value)))}: give True or False")
    return bool(value)


def checked_share(value: Any, name: str) -> float:
    """A number of 0 .. 1.

    Raises:
        ValueError: it is none; `name` is that of the argument.
    """
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"`{name}` is {shorten(escaped(repr(value)))}: expected a number from 0 to 1")
    return share
