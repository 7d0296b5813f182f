"""Dataset: interactions, external ids and texts, cut into parts; one folder on disk."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS
from cllm4rec.data.ids import IdMap, hash_ids, id_rows, repeated, row_numbers, with_categories
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix
from cllm4rec.data.readers.tables import CheckedTable, read_event_table, read_item_table, read_user_table
from cllm4rec.data.storage import PARTS, StoredTables, load_tables, save_tables
from cllm4rec.files.damage import reading


@dataclass(frozen=True)
class Dataset:
    """Everything a recommender may learn from, and the parts it may not.

    Attributes:
        interactions: the events, sorted by user and time.
        users: a row a user, number = row: `user_id` and any text columns.
        items: a row an item, number = row: `item_id` and any text columns ("" where an item has no such text).
        part: uint8 (n_events,), 0 train, 1 validation, 2 test, 3 history (input when scoring, never learned from).
        about: where it came from: counts, the rules applied, the split and its hash.
        ties: `tie_order`, where it was read from a file.
    """

    interactions: Interactions
    users: pl.DataFrame
    items: pl.DataFrame
    part: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)
    ties: np.ndarray | None = None

    @classmethod
    def from_frame(cls, events: Any, items: Any = None, users: Any = None) -> "Dataset":
        """Number users and items and sort the events.

        Args:
            events: a pandas, Polars or Arrow table of `user_id`, `item_id`, and optionally `timestamp` (seconds, or a date),
                `position` (order within a user), `review_text` and `part` (one of `PARTS`; all train without it). Columns
                are found, checked and converted as those of files (`readers.read_event_table`).
            items: `item_id` and text columns; items without an event are left out.
            users: `user_id` and text columns, likewise.

        Users and items are numbered by a hash of their id, so that a number says nothing about popularity or age.
        A user's events are ordered by position, then timestamp, then a hash of the ids; empty cells come first.

        Raises:
            ValueError: a column is missing or a cell is wrong; the message names table, row and column.
        """
        return cls.from_tables(
            read_event_table(events, also=("part",)),
            None if items is None else read_item_table(items),
            None if users is None else read_user_table(users),
        )

    @classmethod
    def from_tables(
        cls, events: CheckedTable, items: CheckedTable | None = None, users: CheckedTable | None = None
    ) -> "Dataset":
        """As `from_frame`, of tables that are in this package's form already."""
        seen = with_categories(events.frame)
        user_rows = id_rows(seen["user_id"], None if users is None else users.frame, "user_id")
        return cls._numbered(
            seen, user_rows, id_rows(seen["item_id"], None if items is None else items.frame, "item_id")
        )

    def with_histories(self, events: Any) -> "Dataset":
        """A dataset of other events over the same items: histories to serve, of users known or new.

        Args:
            events: as `from_frame` takes them; all count as train.

        Raises:
            ValueError: an item is not one of this dataset's, or a cell is wrong.
        """
        frame = read_event_table(events).frame
        self.item_ids.index(frame["item_id"].unique(), "item")
        return self._numbered(frame, id_rows(frame["user_id"], self.users, "user_id"), self.items)

    @classmethod
    def _numbered(cls, events: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> "Dataset":
        """Events as rows of the tables of users and items, in order."""
        if events.is_empty():
            raise ValueError("there are no events: nothing is left to learn from")
        user = row_numbers(events["user_id"], users["user_id"])
        item = row_numbers(events["item_id"], items["item_id"])
        several = repeated(user * len(items) + item)
        if several.any():
            name, other = events.filter(several).select("user_id", "item_id").row(0)
            raise ValueError(
                f"user {name!r} has item {other!r} more than once: keep one event (build_dataset does)"
            )
        tie = mix(hash_ids(users["user_id"])[user], hash_ids(items["item_id"])[item])
        times = _filled(events["timestamp"]) if "timestamp" in events.columns else None
        position = _filled(events["position"]) if "position" in events.columns else None
        order = _order([key for key in (user, position, times, tie) if key is not None])
        part = np.zeros(len(events), dtype=np.uint8)
        if "part" in events.columns:
            wrong = events.filter(~pl.col("part").is_in(PARTS).fill_null(False))
            if len(wrong):
                raise ValueError(f"part {wrong['part'][0]!r} is unknown: it may be {', '.join(PARTS)}")
            part = (
                events["part"]
                .gather(order)
                .replace_strict({name: i for i, name in enumerate(PARTS)})
                .to_numpy()
            )
        interactions = Interactions(
            user[order],
            item[order],
            len(users),
            len(items),
            None if times is None else times[order],
            events["review_text"].gather(order).fill_null("") if "review_text" in events.columns else None,
        )
        return cls(interactions, users, items, part.astype(np.uint8))

    @cached_property
    def user_ids(self) -> IdMap:
        return IdMap(self.users["user_id"])

    @cached_property
    def item_ids(self) -> IdMap:
        return IdMap(self.items["item_id"])

    @property
    def n_users(self) -> int:
        return self.interactions.n_users

    @property
    def n_items(self) -> int:
        return self.interactions.n_items

    @cached_property
    def tie_order(self) -> np.ndarray:
        """int64 (n_items,): among items of equal score, the lower value ranks first. A hash of the external ids, so
        that ties favour neither popular items nor low numbers."""
        if self.ties is not None:
            return self.ties
        order = np.lexsort(
            (self.items["item_id"].cast(pl.String).to_numpy(), hash_ids(self.items["item_id"]))
        )
        ranks = np.empty(self.n_items, dtype=np.int64)
        ranks[order] = np.arange(self.n_items)
        return ranks

    def only(self, *parts: str) -> "Dataset":
        """The same users, items and texts with the events (and reviews) of the named parts only."""
        keep = np.isin(self.part, [PARTS.index(part) for part in parts])
        return replace(self, interactions=self.interactions.select(keep), part=self.part[keep])

    @cached_property
    def train(self) -> "Dataset":
        return self.only("train")

    @cached_property
    def validation(self) -> "Dataset":
        return self.only("validation")

    @cached_property
    def test(self) -> "Dataset":
        return self.only("test")

    @cached_property
    def seen(self) -> "Dataset":
        """What a model may look at when it scores: training events, and histories that it never learns from."""
        return self.only("train", "history")

    @property
    def item_texts(self) -> dict[str, list[str]]:
        """Text columns of the items, name -> one text an item; "" for an item without an event in this dataset, so that
        texts of the held-out parts do not reach what learns from `train`."""
        return _texts(
            self.items, ITEM_TEXTS, np.bincount(self.interactions.items, minlength=self.n_items) > 0
        )

    @property
    def user_texts(self) -> dict[str, list[str]]:
        """Text columns of the users, likewise."""
        return _texts(self.users, USER_TEXTS, np.diff(self.interactions.indptr) > 0)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, events and texts, without the split."""
        digest = hashlib.sha256()
        for frame in (self.users, self.items):
            for column in frame.get_columns():
                digest.update(f"{column.name}\0".encode() + "\0".join(column.cast(pl.String)).encode())
        events = self.interactions
        digest.update(events.users.tobytes() + events.items.tobytes())
        digest.update(b"" if events.times is None else events.times.tobytes())
        digest.update(b"" if events.reviews is None else "\0".join(events.reviews).encode())
        return digest.hexdigest()

    @cached_property
    def split_fingerprint(self) -> str:
        """SHA-256 of the part of each event."""
        return hashlib.sha256(self.part.tobytes()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write the dataset as a folder: events.parquet, users.parquet, items.parquet, dataset.json, manifest.json.

        The folder appears whole or not at all. An older dataset of that name is replaced; anything else is refused.

        Raises:
            ValueError: the folder is something else, is being written by another process, or cannot be written.
        """
        events = self.interactions
        columns: dict[str, Any] = {"user": events.users, "item": events.items, "part": self.part}
        columns |= {} if events.times is None else {"timestamp": events.times}
        columns |= {} if events.reviews is None else {"review_text": events.reviews}
        about = self.about | {
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_events": len(events),
            "n_events_by_part": {name: int((self.part == i).sum()) for i, name in enumerate(PARTS)},
            "data_sha256": self.fingerprint,
            "split_sha256": self.split_fingerprint,
        }
        save_tables(
            Path(folder), StoredTables(pl.DataFrame(columns), self.users, self.items, self.tie_order, about)
        )

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read a folder written by `save`, each file checked against its hash.

        Raises:
            ValueError: there is no dataset in the folder, or it is damaged or of another format version.
        """
        stored = load_tables(Path(folder))
        events = stored.events
        with reading(Path(folder), "prepare the dataset again"):
            interactions = Interactions(
                events["user"].to_numpy(),
                events["item"].to_numpy(),
                len(stored.users),
                len(stored.items),
                events["timestamp"].to_numpy() if "timestamp" in events.columns else None,
                events["review_text"] if "review_text" in events.columns else None,
            )
        return cls(
            interactions,
            stored.users,
            stored.items,
            events["part"].to_numpy(),
            stored.about,
            stored.tie_order,
        )


def _texts(rows: pl.DataFrame, names: tuple[str, ...], here: np.ndarray) -> dict[str, list[str]]:
    """The text columns that there are, with texts where `here` (n,) holds and "" elsewhere."""
    there = [name for name in names if name in rows.columns]
    shown = rows.select(
        pl.when(pl.Series(here)).then(pl.col(name)).otherwise(pl.lit("")).alias(name) for name in there
    )
    return {name: shown[name].to_list() for name in there}


def _order(keys: list[np.ndarray]) -> np.ndarray:
    """The rows in ascending order of the first key, then of the second, ...; of equal ones the upper row first."""
    columns = pl.DataFrame({str(place): key for place, key in enumerate(keys)}).with_row_index("row")
    by = [
        *columns.columns[1:],
        "row",
    ]  # the row as a key makes the order certain, at a third of a stable sort's time
    return columns.select(pl.arg_sort_by(by)).to_series().to_numpy()


def _filled(column: pl.Series) -> np.ndarray:
    """Whole numbers, int64, with -1 in empty places, or what is below all others."""
    known = column.drop_nulls().to_numpy()
    return column.cast(pl.Int64).fill_null(min(-1, int(known.min()) - 1) if len(known) else -1).to_numpy()
