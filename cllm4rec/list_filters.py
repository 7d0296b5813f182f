"""Filters of top-k lists: files of item ids -> a mask of the items that no list may hold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cllm4rec.data.ids import IdMap
from cllm4rec.settings import setting


@dataclass(frozen=True)
class ListFilters:
    """Filters of the lists."""

    allow: str | None = setting(
        None, metavar="FILE", help="recommend only these items: file of item ids, one per line"
    )
    deny: str | None = setting(
        None, metavar="FILE", help="never recommend these items: file of item ids, one per line"
    )


def excluded_items(filters: ListFilters, item_ids: IdMap) -> np.ndarray:
    """Items that no list may hold, bool (n_items,): those outside `allow`, and those in `deny`.

    Raises:
        ValueError: a file cannot be read or holds an unknown id; or no item is left.
    """
    excluded = np.zeros(len(item_ids), dtype=bool)
    if filters.allow is not None:
        excluded[:] = True
        excluded[_items(filters.allow, item_ids)] = False
    if filters.deny is not None:
        excluded[_items(filters.deny, item_ids)] = True
    if excluded.all():
        names = [f"`{name}` {path}" for name, path in vars(filters).items() if path is not None]
        raise ValueError(f"{' and '.join(names)}: no item is left to recommend")
    return excluded


def read_ids(path: str) -> list[str]:
    """The ids in a text file, one per line; empty lines are skipped.

    Raises:
        ValueError: there is no such file, or it is not UTF-8.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    return [line for line in lines if line]


def _items(path: str, item_ids: IdMap) -> np.ndarray:
    """Numbers of the items in a file."""
    ids = read_ids(path)
    try:
        return item_ids.index(ids, "item")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
