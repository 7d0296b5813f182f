"""Dataset: interactions, external ids and texts, split into parts; one folder on disk."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from cllm4rec.data.build import BuildSettings, number_tables
from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS
from cllm4rec.data.description import DatasetDescription, DatasetHashes
from cllm4rec.data.filters import latest_of_repeats
from cllm4rec.data.fingerprints import data_fingerprint, split_fingerprint
from cllm4rec.data.ids import IdMap
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.numbering import number_events
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_all_tables, read_event_table
from cllm4rec.data.storage import PARTS, StoredTables, load_tables, save_tables
from cllm4rec.data.texts import texts_by_column, with_texts
from cllm4rec.messages import counted

log = logging.getLogger("cllm4rec")


@dataclass(frozen=True)
class Dataset:
    """Users, items and events, and the part of the split that each event is in.

    Attributes:
        interactions: the events, sorted by user and time.
        users: one row per user, number = row: `user_id` and text columns.
        items: one row per item, number = row: `item_id` and text columns; a missing text is "".
        part: uint8 (n_events,): 0 train, 1 validation, 2 test, 3 history (input when scoring, never learned).
        description: how the data was filtered and split; None without a split (`from_frame`).
        stored_tie_order: `tie_order` as the folder has it; None if not loaded.
        stored_hashes: hashes as the folder has them, of the whole dataset even if this one holds only some of
            its parts; None if not loaded.
        anonymous: whether the users are histories without ids, named by their rows. No model takes such a
            user for one of its training set.
    """

    interactions: Interactions
    users: pl.DataFrame
    items: pl.DataFrame
    part: np.ndarray
    description: DatasetDescription | None = None
    stored_tie_order: np.ndarray | None = None
    stored_hashes: DatasetHashes | None = None
    anonymous: bool = False

    def __repr__(self) -> str:
        split = "" if self.description is None else f" (split {self.description.split.method})"
        events = counted(len(self.interactions), "event")
        return f"Dataset: {counted(self.n_users, 'user')}, {counted(self.n_items, 'item')}, {events}{split}"

    @classmethod
    def from_frame(
        cls,
        events: Any,
        items: Any = None,
        users: Any = None,
        *,
        split: Any = None,
        split_column: str | None = None,
        seed: int = 0,
        min_rating: float | None = None,
        k_core: int = 0,
        shuffle_ties: int | None = None,
        drop_incomplete: bool = False,
        keep_all_items: bool = False,
        item_attributes: Collection[str] = (),
    ) -> "Dataset":
        """Make a dataset from tables: filter the events, number users and items, split.

        >>> events = pl.DataFrame({"user_id": [7, 7, 7], "item_id": ["a", "c", "b"], "timestamp": [1, 3, 2]})
        >>> items = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["Alien", "Brazil", "Cube"]})
        >>> dataset = Dataset.from_frame(events, items, split="leave-last-out")
        >>> dataset.item_ids.names(dataset.test.interactions.items).to_list()
        ['c']

        Users and items are numbered in the order of a hash of their ids. A user's events are ordered by
        position, then timestamp, then a hash of the ids; empty cells come first.

        Args:
            events: a pandas, Polars or Arrow table, a file, or a result of `readers.read_event_table`. It has
                `user_id`, `item_id`, and optionally `timestamp` (seconds or dates), `position` (order within
                a user), `rating`, `review_text` and, without `split`, `part` (one of `PARTS`).
            items, users: `item_id` or `user_id`, and texts; by default rows without an event are left out.
            split: a rule of `splits.RULES`, or a table of parts or of held-out rows. Of repeated events one
                is kept, and `description` tells what was dropped and not read. None: `part` holds the parts,
                or all events are train; a repeated event is refused, and there is no description.
            split_column: column of parts of a split table; `seed_{seed}` if not given.
            seed: of the random split.
            min_rating: lowest rating to keep; of repeated events, that of the kept event counts.
            k_core: keep users and items with at least this many events, to a fixed point; 0 keeps all.
            shuffle_ties: seed of a random order of a user's simultaneous events; None: by a hash of the ids.
            drop_incomplete: drop rows without a user or item id, in all tables, rather than refuse them.
            keep_all_items: also keep the items of `items` that have no event.
            item_attributes: further columns of `items` to keep, for conditions on items (`where`).

        Raises:
            ValueError: a column is missing, a cell is wrong, an argument has no effect or no event is left.
        """
        if split is not None and not isinstance(split, str):
            split = read_split_table(split, drop_incomplete=drop_incomplete)
        settings = BuildSettings(split, split_column, seed, min_rating, k_core, shuffle_ties, keep_all_items)
        also = ("part",) if split is None else ()
        tables = read_all_tables(events, items, users, also, item_attributes, drop_incomplete)
        content = number_tables(*tables, settings)
        dataset = cls(content.interactions, content.users, content.items, content.part, content.description)
        return dataset._with_id_maps(content.user_ids, content.item_ids)

    def with_histories(self, events: Any) -> "Dataset":
        """Other events over the same items: the histories to recommend from, of known or new users.

        Of repeated events of a user and an item the latest is kept, by position, then timestamp, then row.
        Ratings are not read.

        Args:
            events: as in `from_frame`; all are train.

        Raises:
            ValueError: an item is not one of this dataset's, or a cell is wrong.
        """
        frame = latest_of_repeats(read_event_table(events).frame)
        self.item_ids.index(frame["item_id"].unique(), "item")
        user_ids = IdMap.ordered_by_hash(frame["user_id"])
        users = with_texts(user_ids.ids, self.users)
        interactions, part = number_events(frame, user_ids, self.item_ids)
        return Dataset(interactions, users, self.items, part)._with_id_maps(user_ids, self.item_ids)

    def _with_id_maps(self, user_ids: IdMap, item_ids: IdMap) -> "Dataset":
        """This dataset with id maps that exist already, so that ids are not hashed again."""
        vars(self).update(user_ids=user_ids, item_ids=item_ids)
        return self

    @cached_property
    def user_ids(self) -> IdMap:
        """External ids of the users, (n_users,) in the order of their numbers."""
        return IdMap(self.users["user_id"])

    @cached_property
    def item_ids(self) -> IdMap:
        """External ids of the items, (n_items,) in the order of their numbers."""
        return IdMap(self.items["item_id"])

    @property
    def n_users(self) -> int:
        """Number of users, with or without events in this dataset."""
        return self.interactions.n_users

    @property
    def n_items(self) -> int:
        """Number of items, with or without events in this dataset."""
        return self.interactions.n_items

    @property
    def tie_order(self) -> np.ndarray:
        """int64 (n_items,): among items of equal score, the lower value ranks first.

        The order is that of hashed external ids, so that ties favour neither popular items nor low numbers.
        """
        return self.item_ids.ranks_by_hash if self.stored_tie_order is None else self.stored_tie_order

    def only(self, *parts: str) -> "Dataset":
        """The same users, items and texts with the events (and reviews) of the named parts only."""
        keep = np.isin(self.part, [PARTS.index(part) for part in parts])
        dataset = replace(self, interactions=self.interactions.select(keep), part=self.part[keep])
        return dataset._with_id_maps(self.user_ids, self.item_ids)

    @cached_property
    def train(self) -> "Dataset":
        """Training events; all n_users users and n_items items keep their numbers."""
        return self.only("train")

    @cached_property
    def validation(self) -> "Dataset":
        """Validation events; all n_users users and n_items items keep their numbers."""
        return self.only("validation")

    @cached_property
    def test(self) -> "Dataset":
        """Test events; all n_users users and n_items items keep their numbers."""
        return self.only("test")

    @cached_property
    def seen(self) -> "Dataset":
        """Input events when scoring: training events, and histories, which are never learned from."""
        return self.only("train", "history")

    @cached_property
    def known(self) -> "Dataset":
        """All events but those of test."""
        return self.only("train", "validation", "history")

    def task(self, part: Literal["validation", "test"]) -> "Task":
        """The events that are read, predicted and masked when a held-out part is measured.

        Training events and histories are input. In a split in time, validation events precede test events
        and are input at test too; in other splits they are not. They are masked at test in any case.

        Raises:
            ValueError: `part` is another word, or has no events.
        """
        if part not in ("validation", "test"):
            raise ValueError(f"part {part!r} is not held out: take validation or test")
        held_out = self.validation if part == "validation" else self.test
        if not len(held_out.interactions):
            raise ValueError(f"the dataset has no {part} events: prepare it with a split to measure")
        if part == "validation":
            return Task(self.seen, held_out, self.seen)
        if self.description is None and len(self.validation.interactions):
            log.warning(
                "the dataset does not say how it was split: validation events are no input at test. "
                "If they precede the test events, make the dataset with a split in time"
            )
        in_time = self.description is not None and self.description.split.in_time
        return Task(self.known if in_time else self.seen, held_out, self.known)

    @property
    def item_texts(self) -> dict[str, list[str]]:
        """Text column of the items -> one text per item.

        Items without an event in this dataset have "". So texts of items that occur only in held-out parts
        do not reach a system that learns from `train`.
        """
        has_event = self.interactions.item_has_event
        return texts_by_column(self.items, ITEM_TEXTS, has_event)

    @property
    def user_texts(self) -> dict[str, list[str]]:
        """Text column of the users -> one text per user; "" without an event in this dataset."""
        return texts_by_column(self.users, USER_TEXTS, np.diff(self.interactions.indptr) > 0)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, events and texts, without the split."""
        return data_fingerprint(self.interactions, self.users, self.items)

    @cached_property
    def split_fingerprint(self) -> str:
        """SHA-256 of the part of each event."""
        return split_fingerprint(self.part)

    @property
    def hashes(self) -> DatasetHashes:
        """`stored_hashes`, or those of this dataset if it was not loaded from a folder."""
        return self.stored_hashes or DatasetHashes(self.fingerprint, self.split_fingerprint)

    def save(self, folder: str | Path) -> None:
        """Write the dataset as a folder (`storage`).

        The folder appears whole or not at all. An older dataset of that name is replaced.

        Raises:
            ValueError: the folder is something else, another process writes it, or it cannot be written.
        """
        hashes = DatasetHashes(self.fingerprint, self.split_fingerprint)
        tables = StoredTables(
            self.interactions, self.users, self.items, self.part, self.description, self.tie_order, hashes
        )
        save_tables(Path(folder), tables)

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read a folder written by `save`, each file checked against its hash.

        Raises:
            ValueError: there is no dataset in the folder, or it is damaged or of another format version.
        """
        return cls(*load_tables(Path(folder)))


@dataclass(frozen=True)
class Task:
    """A prediction task: three sets of events of the same users and items.

    Attributes:
        input: the events that a model may read.
        held_out: the events to predict.
        masked: the events whose items are left out of their user's list.
    """

    input: Dataset
    held_out: Dataset
    masked: Dataset

    def __repr__(self) -> str:
        n_input, n_held_out, n_masked = (
            f"{len(dataset.interactions):,}" for dataset in (self.input, self.held_out, self.masked)
        )
        sizes = f"{counted(self.input.n_users, 'user')}, {counted(self.input.n_items, 'item')}"
        return f"Task: {sizes}; events: {n_input} input, {n_held_out} held out, {n_masked} masked"
