"""Filters of top-k lists: allowed and denied items and a condition -> the items that no list may hold."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from cllm4rec.data.conditions import matching_items
from cllm4rec.data.ids import IdMap


def excluded_items(
    item_ids: IdMap,
    items: pl.DataFrame,
    allow: Sequence[object] | None = None,
    deny: Sequence[object] | None = None,
    where: str | None = None,
) -> np.ndarray:
    """Items that no list may hold, bool (n_items,).

    Args:
        item_ids: of all items.
        items: `item_id` and text columns of all items, in the same order.
        allow: ids of the only items that lists may hold; None: all.
        deny: ids of items that no list may hold.
        where: a condition on the items that lists may hold, see `matching_items`.

    Raises:
        ValueError: an id is unknown, the condition cannot be read, or no item is left.
    """
    excluded = np.zeros(len(item_ids), dtype=bool)
    if allow is not None:
        excluded[:] = True
        excluded[_items("allow", allow, item_ids)] = False
    if deny is not None:
        excluded[_items("deny", deny, item_ids)] = True
    if where is not None:
        excluded |= ~matching_items(where, items)
    if excluded.all():
        filters = {"allow": allow, "deny": deny, "where": where}
        names = [f"`{name}`" for name, value in filters.items() if value is not None]
        verb = "leave" if len(names) > 1 else "leaves"
        raise ValueError(f"{' and '.join(names)} {verb} no item to recommend")
    return excluded


def _items(name: str, ids: Sequence[object], item_ids: IdMap) -> np.ndarray:
    """Numbers of the items of a filter."""
    try:
        return item_ids.index(ids, "item")
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
