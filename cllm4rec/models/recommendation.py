"""Lists by external ids: users or histories -> the events to rank from, and lists -> a table with titles."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import latest_of_repeats
from cllm4rec.data.ids import IdMap, listed, listed_ids
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.numbering import number_events
from cllm4rec.data.readers.tables import CheckedTable, read_event_table
from cllm4rec.ranking import Ranking

log = logging.getLogger("cllm4rec")

FEW_ROWS = 50  # of a list; single cells of more are slower than one selection


@dataclass(frozen=True)
class Catalogue:
    """The items of a model.

    Attributes:
        ids: external ids of the n_items items.
        table: one row per item: `item_id` and text columns.
        tie_order: int64 (n_items,), see `Dataset.tie_order`.
    """

    ids: IdMap
    table: pl.DataFrame
    tie_order: np.ndarray


def matched(dataset: Dataset, catalogue: Catalogue) -> Dataset:
    """The events of a dataset over the items of a model, which are matched by their ids.

    Args:
        dataset: its items may be in another order, or some of the model's only.
        catalogue: the items of the model.

    Raises:
        ValueError: an item is not one of the model's.
    """
    events = dataset.interactions
    if not dataset.item_ids.is_same(catalogue.ids):
        numbers = catalogue.ids.find(dataset.item_ids.ids)
        _refuse_unknown("the dataset", dataset.item_ids.ids.to_list(), numbers)
        events = replace(events, items=numbers[events.items], n_items=len(catalogue.ids))
    found = replace(dataset, interactions=events, items=catalogue.table, stored_tie_order=catalogue.tie_order)
    return found._with_id_maps(dataset.user_ids, catalogue.ids)


def of_histories(histories: Any, catalogue: Catalogue) -> Dataset:
    """A dataset with one anonymous user a history, in the order of the input.

    Args:
        histories: item ids of each history in time order, the oldest first, whose user is named by its row;
            or a table of events, as `Dataset.from_frame` takes it. Of repeated items of a history the latest
            is kept, as in `Dataset.with_histories`.
        catalogue: the items of the model.

    Raises:
        ValueError: a history is empty, is no list, or holds an unknown item; or a table cannot be read.
    """
    is_table = isinstance(histories, str | Path | CheckedTable) or hasattr(type(histories), "columns")
    return _anonymous(*(_of_table if is_table else _of_lists)(histories, catalogue.ids), catalogue)


def of_nobody(catalogue: Catalogue) -> Dataset:
    """A dataset with one anonymous user 0 without events."""
    none = np.empty(0, dtype=np.int64)
    return _anonymous(
        Interactions(none, none, 1, len(catalogue.ids)), IdMap(pl.Series("user_id", [0])), catalogue
    )


def _anonymous(events: Interactions, user_ids: IdMap, catalogue: Catalogue) -> Dataset:
    """A dataset of events of anonymous users over the items of a model."""
    dataset = Dataset(
        events,
        pl.DataFrame({"user_id": user_ids.ids}),
        catalogue.table,
        np.zeros(len(events), dtype=np.uint8),
        stored_tie_order=catalogue.tie_order,
        anonymous=True,
    )
    return dataset._with_id_maps(user_ids, catalogue.ids)


def _of_table(table: Any, item_ids: IdMap) -> tuple[Interactions, IdMap]:
    """The events of a table, and the ids of its users."""
    frame = read_event_table(table).frame
    if "rating" in frame.columns:
        log.warning(
            "histories: ratings are not read, every event counts as liked: leave out those that do not"
        )
    if frame.is_empty():  # no lists are asked for
        none = np.empty(0, dtype=np.int64)
        return Interactions(none, none, 0, len(item_ids)), IdMap(frame["user_id"])
    items = frame["item_id"].unique(maintain_order=True).to_list()
    _refuse_unknown("the histories", items, item_ids.find(items))
    user_ids = IdMap(frame["user_id"].unique(maintain_order=True))
    events, _ = number_events(latest_of_repeats(frame), user_ids, item_ids)
    return events, user_ids


def _of_lists(histories: Any, item_ids: IdMap) -> tuple[Interactions, IdMap]:
    """The events of lists of item ids, and the ids of their users: the rows."""
    rows_of_ids = listed(histories, "histories", "a list of lists of ids, or a table of events")
    lists = [listed_ids(history, f"histories[{row}]") for row, history in enumerate(rows_of_ids)]
    lengths = np.array([len(ids) for ids in lists], dtype=np.int64)
    if not lengths.all():
        name = f"histories[{np.flatnonzero(lengths == 0)[0]}]"
        raise ValueError(f"`{name}` is empty: there is nothing to recommend from")
    ids = [item for history in lists for item in history]
    numbers = item_ids.find(ids)
    _refuse_unknown("the histories", ids, numbers)
    rows = np.arange(len(lists))
    frame = latest_of_repeats(pl.DataFrame({"user_id": np.repeat(rows, lengths), "item_id": numbers}))
    users, items = (frame[name].to_numpy() for name in ("user_id", "item_id"))
    return Interactions(users, items, len(lists), len(item_ids)), IdMap(pl.Series("user_id", rows))


def _refuse_unknown(name: str, ids: Sequence[object], numbers: np.ndarray) -> None:
    """Raise ValueError if an item id (n,) has number -1; `name` says what holds it."""
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        raise ValueError(
            f"item {str(ids[unknown[0]])!r} of {name} is none of the model's items ({len(unknown):,} of "
            f"{len(ids):,} unknown): leave it out, or add it with cllm4rec extend"
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
        columns["title"] = seen.items["title"][items]
    return pl.DataFrame(columns)


def rows_of_lists(lists: Ranking, seen: Dataset) -> list[list[dict[str, object]]]:
    """The rows of `recommendation_table` of each list, without the user; for a single list, twice as fast.

    Args:
        lists: user and item numbers.
        seen: the dataset that has these numbers.
    """
    lengths = np.count_nonzero(lists.items >= 0, axis=1)
    items = lists.items[lists.items >= 0].tolist()
    columns = {"item_id": _cells(seen.item_ids.ids, items)}
    columns["rank"] = [rank for length in lengths.tolist() for rank in range(1, length + 1)]
    columns["score"] = lists.scores[lists.items >= 0].tolist()
    if "title" in seen.items.columns:
        columns["title"] = _cells(seen.items["title"], items)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    ends = lengths.cumsum().tolist()
    return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _cells(column: pl.Series, rows: list[int]) -> list[object]:
    """Cells of a column; of few rows one by one, which is faster."""
    return [column[row] for row in rows] if len(rows) <= FEW_ROWS else column[rows].to_list()
