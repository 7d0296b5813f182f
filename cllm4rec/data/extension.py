"""Further items, users and events for a dataset, and fewer users: ids that stay keep their order."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.column_names import ITEM_TEXTS, attributes_of
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import latest_of_repeats
from cllm4rec.data.ids import IdMap
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.numbering import number_events
from cllm4rec.data.readers.tables import read_event_table, read_item_table, read_user_table
from cllm4rec.data.texts import with_texts
from cllm4rec.messages import shorten

TRAIN = 0  # index of `PARTS`


@dataclass(frozen=True)
class Extension:
    """A dataset with further users, items and events.

    Attributes:
        dataset: with all of them.
        without_events: the same users and items with the events from before.
        n_repeated: events of the new table that the dataset has, or that repeat; they are left out.
        n_below: events of the new table whose rating is below the lowest of the dataset; they are left out.
        n_known_items: items of the new table that the dataset has; their texts stay.
        n_repeated_items: rows of the new table of items that repeat an item; the first row of each counts.
        n_left_out_users: rows of the new users table without new events, or whose user the dataset has.
    """

    dataset: Dataset
    without_events: Dataset
    n_repeated: int
    n_below: int
    n_known_items: int
    n_repeated_items: int
    n_left_out_users: int


def extended(dataset: Dataset, items: Any = None, events: Any = None, users: Any = None) -> Extension:
    """Add items, users and events to a dataset.

    Existing users and items keep their numbers. New ones follow in the order of a hash of their ids. New
    events are train, and follow the user's existing events, which keep their parts.

    Args:
        dataset: to extend.
        items, users: tables of new ones, as `Dataset.from_frame` takes them. Columns that the
            dataset lacks are not read.
        events: new events of any users, with items of the dataset or of `items`.

    Raises:
        ValueError: a table is wrong, an item of an event is unknown, an id has another type than those of the
            dataset, the dataset has a lowest rating and the new events have no ratings, or there is nothing
            new.
    """
    attributes = attributes_of(dataset.items.columns)
    item_table = None if items is None else read_item_table(items, attributes=attributes).frame
    user_table = None if users is None else read_user_table(users).frame
    read = None if events is None else read_event_table(events).frame
    frame = None if read is None else _rated(read, dataset)
    new_items = _new_ids(dataset.item_ids, item_table, "item")
    all_items = IdMap(pl.concat([dataset.item_ids.ids, new_items]))
    new_users = _new_ids(dataset.user_ids, frame, "user")
    if frame is not None:
        _refuse_unknown_items(frame["item_id"], all_items)
    wide = replace(
        dataset,
        interactions=_resized(dataset.interactions, len(dataset.user_ids) + len(new_users), len(all_items)),
        items=_with_rows(dataset.items, new_items, item_table),
        users=_with_rows(dataset.users, new_users, user_table),
        description=None,
        stored_tie_order=None,
        stored_hashes=None,
    )
    wide = replace(wide, description=_described(dataset, wide.items))
    added = wide if frame is None else _with_events(wide, frame)
    if not len(new_items) and len(added.interactions) == len(dataset.interactions):
        raise ValueError("the dataset has all of these items and events: there is nothing to extend it by")
    n_distinct = 0 if item_table is None else item_table["item_id"].n_unique()
    n_repeated_items = 0 if item_table is None else len(item_table) - n_distinct
    n_users = (
        0
        if user_table is None
        else user_table["user_id"].cast(pl.String).is_in(new_users.cast(pl.String).implode()).not_().sum()
    )
    n_added = len(added.interactions) - len(dataset.interactions)
    n_below = 0 if read is None or frame is None else len(latest_of_repeats(read)) - len(frame)
    n_repeated = 0 if read is None else len(read) - n_below - n_added
    n_known = n_distinct - len(new_items)
    return Extension(added, wide, n_repeated, n_below, n_known, n_repeated_items, int(n_users))


def without_users(dataset: Dataset, ids: list[Any]) -> Dataset:
    """A dataset without some users: their rows, events, reviews and texts.

    The other users, and all items, keep their order. Warnings of `description` are left out, as they may
    name a user.

    Raises:
        ValueError: a user is unknown, or no user is left.
    """
    kept = np.ones(dataset.n_users, dtype=bool)
    kept[dataset.user_ids.index(ids, "user")] = False
    if not kept.any():
        raise ValueError("no user is left: keep at least one, or delete the run and the dataset")
    numbers = np.cumsum(kept) - 1
    of_kept = kept[dataset.interactions.users]
    events = dataset.interactions.select(of_kept)
    description = dataset.description
    return replace(
        dataset,
        interactions=replace(events, users=numbers[events.users], n_users=int(kept.sum())),
        users=dataset.users.filter(pl.Series(kept)),
        part=dataset.part[of_kept],
        description=None if description is None else replace(description, warnings=()),
        stored_hashes=None,
    )


def _new_ids(known: IdMap, table: pl.DataFrame | None, kind: str) -> pl.Series:
    """The ids of a table that are not known, in the order of their hashes, with the type of those known.

    Raises:
        ValueError: known ids are whole numbers, and a new one is none.
    """
    name, kind_of_ids = f"{kind}_id", known.ids.dtype
    if table is None:
        return pl.Series(name, [], dtype=kind_of_ids)
    ids = table[name].cast(pl.String).unique(maintain_order=True)
    new = ids.filter(pl.Series(known.find(ids) < 0))
    if kind_of_ids != pl.String:
        wrong = new.filter(new.cast(kind_of_ids, strict=False).cast(pl.String).ne_missing(new))
        if len(wrong):
            raise ValueError(
                f"{kind} ids of the dataset are whole numbers, and {shorten(repr(wrong[0]))} is none"
            )
    if new.is_empty():
        return pl.Series(name, [], dtype=kind_of_ids)
    return IdMap.ordered_by_hash(new).ids.cast(kind_of_ids).alias(name)


def _refuse_unknown_items(ids: pl.Series, items: IdMap) -> None:
    """Raise ValueError if an item of the new events is neither in the dataset nor in the table of items."""
    distinct = ids.cast(pl.String).unique(maintain_order=True)
    unknown = distinct.filter(pl.Series(items.find(distinct) < 0))
    if len(unknown):
        raise ValueError(
            f"item {shorten(repr(unknown[0]))} has new events, and is neither in the dataset nor in the "
            f"table of items ({len(unknown):,} of {len(distinct):,} unknown): add its row to the items"
        )


def _resized(events: Interactions, n_users: int, n_items: int) -> Interactions:
    """The same events among more users and items."""
    return replace(events, n_users=n_users, n_items=n_items)


def _with_rows(table: pl.DataFrame, ids: pl.Series, texts: pl.DataFrame | None) -> pl.DataFrame:
    """A table with rows for further ids; a text that is not given is ""."""
    rows = with_texts(ids, texts)
    missing = [pl.lit("").alias(name) for name in table.columns if name not in rows.columns]
    return pl.concat([table, rows.with_columns(missing).select(table.columns)])


def _described(dataset: Dataset, items: pl.DataFrame) -> Any:
    """The description, with the numbers of texts of all items."""
    if dataset.description is None:
        return None
    texts = [name for name in ITEM_TEXTS if name in items.columns]
    counts = {name: int((items[name] != "").sum()) for name in texts}
    empty = items.filter(pl.all_horizontal(pl.lit(bool(texts)), *(pl.col(name) == "" for name in texts)))
    return replace(dataset.description, texts=counts, n_items_without_text=len(empty))


def _rated(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The latest event of each user and item, where its rating is one that the dataset keeps.

    Raises:
        ValueError: the dataset has a lowest rating, and the events have none, or no event reaches it.
    """
    once = latest_of_repeats(frame)
    lowest = None if dataset.description is None else dataset.description.min_rating
    if lowest is None:
        return once
    if "rating" not in once.columns:
        raise ValueError(
            f"the dataset has events with a rating of at least {lowest:g}, and the new events have no column "
            "rating: add it"
        )
    kept = once.filter(pl.col("rating") >= lowest)
    if kept.is_empty():
        raise ValueError(
            f"no new event has a rating of at least {lowest:g}, as those of the dataset have: give others"
        )
    return kept


def _with_events(dataset: Dataset, frame: pl.DataFrame) -> Dataset:
    """A dataset with further training events; those that it has are left out.

    Args:
        dataset: has all users and items of the table.
        frame: the table, without repeats.
    """
    before = dataset.interactions
    events, _ = number_events(frame, dataset.user_ids, dataset.item_ids)
    pairs = events.users * dataset.n_items + events.items
    events = events.select(~np.isin(pairs, before.users * dataset.n_items + before.items))
    users = np.concatenate([before.users, events.users])
    order = np.argsort(users, kind="stable")  # new events follow the user's existing events
    times = reviews = None
    if before.times is not None:
        added = np.full(len(events), -1) if events.times is None else events.times
        times = np.concatenate([before.times, added])[order]
    if before.reviews is not None:
        texts = pl.Series([""] * len(events), dtype=pl.String) if events.reviews is None else events.reviews
        reviews = pl.concat([before.reviews, texts.alias(before.reviews.name)]).gather(order)
    items = np.concatenate([before.items, events.items])[order]
    merged = Interactions(users[order], items, dataset.n_users, dataset.n_items, times, reviews)
    part = np.concatenate([dataset.part, np.full(len(events), TRAIN, dtype=np.uint8)])[order]
    description = dataset.description
    if description is not None:
        description = replace(description, n_added_events=description.n_added_events + len(events))
    return replace(dataset, interactions=merged, part=part, description=description)
