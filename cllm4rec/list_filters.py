"""Filters of top-k lists: ids of allowed and denied items -> a mask of the items that no list may hold."""

from collections.abc import Sequence

import numpy as np

from cllm4rec.data.ids import IdMap


def excluded_items(
    item_ids: IdMap, allow: Sequence[object] | None = None, deny: Sequence[object] | None = None
) -> np.ndarray:
    """Items that no list may hold, bool (n_items,): those outside `allow`, and those in `deny`.

    Raises:
        ValueError: an id is unknown, or no item is left.
    """
    excluded = np.zeros(len(item_ids), dtype=bool)
    if allow is not None:
        excluded[:] = True
        excluded[_items("allow", allow, item_ids)] = False
    if deny is not None:
        excluded[_items("deny", deny, item_ids)] = True
    if excluded.all():
        filters = {"allow": allow, "deny": deny}
        names = [f"`{name}`" for name, ids in filters.items() if ids is not None]
        verb = "leave" if len(names) > 1 else "leaves"
        raise ValueError(f"{' and '.join(names)} {verb} no item to recommend")
    return excluded


def _items(name: str, ids: Sequence[object], item_ids: IdMap) -> np.ndarray:
    """Numbers of the items of a filter."""
    try:
        return item_ids.index(ids, "item")
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
