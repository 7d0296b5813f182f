"""Lists by external ids: users or histories -> the events to rank from, and lists -> a table with titles."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import IdMap
from cllm4rec.data.interactions import Interactions
from cllm4rec.ranking import Ranking


class HistoryIds(IdMap):
    """Row numbers as the ids of users who are nothing but a history; no model was trained on them."""


def as_list(name: str, values: object) -> list[object]:
    """The values of a list, array or column of ids.

    Args:
        name: of the argument, in backticks, for errors.
        values: what the caller gave.

    Raises:
        ValueError: it is a single text or number.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name} is {values!r}: give a list of ids")
    return list(values)


def matched(dataset: Dataset, item_ids: IdMap, items: pl.DataFrame) -> Dataset:
    """The events of a dataset over the items of a model, which are matched by their ids.

    Args:
        dataset: its items may be in another order, or some of the model's only.
        item_ids, items: those of the model.

    Raises:
        ValueError: an item is not one of the model's.
    """
    events, tie_order = dataset.interactions, dataset.stored_tie_order
    if not dataset.item_ids.ids.equals(item_ids.ids):
        numbers = item_ids.find(dataset.item_ids.ids)
        _refuse_unknown("dataset", dataset.item_ids.ids.to_list(), numbers)
        events, tie_order = replace(events, items=numbers[events.items], n_items=len(item_ids)), None
    found = replace(dataset, interactions=events, items=items, stored_tie_order=tie_order)
    return found._with_id_maps(dataset.user_ids, item_ids)


def of_histories(histories: Iterable[object], item_ids: IdMap, items: pl.DataFrame) -> Dataset:
    """A dataset with one user a history, named by its row.

    Args:
        histories: item ids in time order, the oldest first.
        item_ids, items: those of the model.

    Raises:
        ValueError: a history is empty, is no list, or holds an unknown item.
    """
    lists = [
        as_list(f"row {row} of `histories`", history)
        for row, history in enumerate(as_list("`histories`", histories))
    ]
    lengths = np.array([len(ids) for ids in lists], dtype=np.int64)
    if not lengths.all():
        empty = int(np.flatnonzero(lengths == 0)[0])
        raise ValueError(f"row {empty} of `histories` is empty: there is nothing to recommend from")
    ids = [item for history in lists for item in history]
    numbers = item_ids.find(ids)
    _refuse_unknown("histories", ids, numbers)
    rows = np.arange(len(lists))
    events = Interactions(np.repeat(rows, lengths), numbers, len(lists), len(item_ids))
    users = pl.DataFrame({"user_id": rows})
    return Dataset(events, users, items, np.zeros(len(numbers), dtype=np.uint8))._with_id_maps(
        HistoryIds(users["user_id"]), item_ids
    )


def _refuse_unknown(name: str, ids: list[object], numbers: np.ndarray) -> None:
    """Raise ValueError if an item id (n,) has number -1; `name` is the argument that holds it."""
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        raise ValueError(
            f"`{name}`: item {str(ids[unknown[0]])!r} is none of the items that the model was trained on "
            f"({len(unknown):,} of {len(ids):,} unknown): leave it out, or train with it"
        )


def recommendation_table(lists: Ranking, seen: Dataset) -> pl.DataFrame:
    """Rows user_id, item_id, rank (from 1), score, title if there is one; ranks without item are left out.

    Args:
        lists: user and item numbers.
        seen: the dataset that has these numbers.
    """
    rows, ranks = np.nonzero(lists.items >= 0)
    items = lists.items[rows, ranks]
    columns = {
        "user_id": seen.user_ids.names(lists.users[rows]),
        "item_id": seen.item_ids.names(items),
        "rank": ranks + 1,
        "score": lists.scores[rows, ranks],
    }
    if "title" in seen.items.columns:
        columns["title"] = seen.items["title"].gather(items)
    return pl.DataFrame(columns)
