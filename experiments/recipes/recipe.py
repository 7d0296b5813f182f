"""A recipe: from the files of a data set to its tables."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs

from cllm4rec.data.readers.tables import read_events, read_items
from experiments.recipes.originals import find_file
from experiments.recipes.protocol_a import liked_core, ordered_events

EVENTS, ITEMS = "interactions.tsv", "items.tsv"  # of a republished set, and of the folder that is written


@dataclass(frozen=True)
class Counts:
    """Sizes of a data set.

    Attributes:
        read: events of the file.
        kept: events of the split.
        users, items: with an event of the split.
    """

    read: int
    kept: int
    users: int
    items: int

    def __str__(self) -> str:
        kept = f"{self.kept:,} kept of {self.users:,} users and {self.items:,} items"
        return f"{self.read:,} events read, {kept}"


@dataclass(frozen=True)
class Recipe:
    """How the tables of a data set are made, and what is known of the result.

    Attributes:
        title: of the data set.
        event_file, item_file: names of the published files.
        event_columns, item_columns: columns of the tables, where the files have them. A `position` that the
            file lacks is the rank of the event within its user.
        published: sizes from the published files.
        republished: sizes from the tables of the reported results.
        hashes: `split_hash` of the seeds 0, 1, 2 from the tables of the reported results.
        confirmed: whether the published files are known to give the same split.
        items_optional: whether `item_file` may be missing; the texts of items are then empty.
        min_rating: lowest rating that is kept, before a 5-core; None keeps all events.
        complete_items: adds columns to the items of `item_file`.
    """

    title: str
    event_file: str
    item_file: str
    event_columns: tuple[str, ...]
    item_columns: tuple[str, ...]
    published: Counts
    republished: Counts
    hashes: tuple[str, ...]
    confirmed: bool = False
    items_optional: bool = False
    min_rating: float | None = None
    complete_items: Callable[[pl.DataFrame], pl.DataFrame] | None = None

    def read(self, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Events and items of the republished tables, or of the published files, in a folder.

        Raises:
            ValueError: a file is missing or damaged, or lacks a column.
        """
        if is_republished(folder):
            event_file, item_file = self._require(folder, EVENTS), self._require(folder, ITEMS)
            return self._events(event_file), self._items(item_file)
        events = self._events(self._require(folder, self.event_file))
        if self.items_optional and find_file(folder, self.item_file) is None:
            empty = [pl.lit("").alias(name) for name in self.item_columns]
            return events, events.select("item_id", *empty).unique("item_id", maintain_order=True)
        return events, self._items(self._require(folder, self.item_file), self.complete_items)

    def known_hash(self, seed: int) -> str | None:
        """`split_hash` of a seed in the reported results; None if it is not listed."""
        return self.hashes[seed] if 0 <= seed < len(self.hashes) else None

    def _require(self, folder: Path, name: str) -> Path:
        """The file of a name in a folder."""
        file = find_file(folder, name)
        if file is None:
            files = f"{self.event_file} and {self.item_file}, or republished tables"
            raise ValueError(f"{folder}: no {name} or {name}.gz: the recipe of {self.title} reads {files}")
        return file

    def _events(self, file: Path) -> pl.DataFrame:
        """The events of a file, with the columns that the recipe needs."""
        events = read_events(file)
        needed = [("position", "timestamp")] + ([("rating",)] if self.min_rating is not None else [])
        for names in needed:
            if not set(names) & set(events.columns):
                raise ValueError(f"{file}: the recipe of {self.title} needs a column {' or '.join(names)}")
        return _select(events, ("user_id", "item_id", *self.event_columns))

    def _items(
        self, file: Path, complete: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    ) -> pl.DataFrame:
        """The items of a file."""
        items = read_items(file)
        return _select(items if complete is None else complete(items), ("item_id", *self.item_columns))

    def ordered(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events in the order of protocol A, without repeats."""
        ordered = ordered_events(events)
        if "position" in self.event_columns and "position" not in events.columns:
            rank = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id")
            return ordered.with_columns(position=rank)
        return ordered

    def kept(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events of the split."""
        return events if self.min_rating is None else liked_core(events, self.min_rating, k=5)


def is_republished(folder: Path) -> bool:
    """Whether a folder holds republished tables, and not the published files."""
    return find_file(folder, EVENTS) is not None


def _select(table: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """Those of the columns that a table has; ids are text, and texts have single spaces."""
    ids = cs.by_name("user_id", "item_id", require_all=False)
    selected = table.select(name for name in columns if name in table.columns)
    return selected.with_columns(ids.cast(pl.String), (cs.string() - ids).str.replace_all(r"\s+", " "))
