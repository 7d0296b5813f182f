"""Tables of parts and of held-out rows: which events are train, validation and test."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from cllm4rec.data.readers.columns import id_lists, ids, texts
from cllm4rec.data.readers.formats import Source
from cllm4rec.data.readers.incomplete import complete_rows
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.tables import WAY_OUT, find_columns, need_column, raw_table
from cllm4rec.messages import join_names

HELD_OUT_COLUMNS = (
    "user_id",
    "history_items",
    "target_item",
    "split",
)  # a user in a row: what came before, what to find
PART_NAMES = {  # how a split file may say it -> the part
    **dict.fromkeys(("t", "train"), "train"),
    **dict.fromkeys(("v", "val", "valid", "validation"), "validation"),
    **dict.fromkeys(("e", "test"), "test"),
    **dict.fromkeys(("h", "history"), "history"),
}


@dataclass(frozen=True)
class SplitTable:
    """A split file: `user_id`, `item_id` and columns of parts as text; or held-out rows, the `HELD_OUT_COLUMNS`.

    Attributes:
        frame: the columns, checked.
        raw: the table it came from, with the same rows.
        taken: this package's name of each column -> its name there.
        incomplete: how many rows were dropped because they have no user or item id, as `CheckedTable` counts them.
    """

    frame: pl.DataFrame
    raw: RawTable
    taken: dict[str, str]
    incomplete: dict[str, int] = field(default_factory=dict)

    @property
    def held_out(self) -> bool:
        return "target_item" in self.frame.columns

    def unread(self, column: str) -> list[str]:
        """The columns that are not read where one of the columns holds the parts."""
        read = self.frame.columns if self.held_out else ("user_id", "item_id", column)
        names = dict(zip(self.taken.values(), self.taken, strict=True))
        return [name for name in self.raw.columns if names.get(name, name) not in read]

    def parts(self, column: str) -> pl.Series:
        """The part of each row by one of the columns.

        Raises:
            ValueError: the column is missing or holds something else.
        """
        if column not in self.frame.columns:
            others = join_names(name for name in self.frame.columns if name not in ("user_id", "item_id"))
            raise ValueError(
                f"{self.raw.name} has no column {column!r}: choose one of {others} (--split-column)"
            )
        names = self.frame[column]
        self.raw.refuse(
            column, ~names.is_in(list(PART_NAMES)), "t, v, e, h or train, validation, test, history is needed"
        )
        parts = names.replace_strict(PART_NAMES, return_dtype=pl.String)
        pair = self.frame.select(
            pl.struct(pl.col("user_id", "item_id").cast(pl.String)).alias("pair"), parts.alias("part")
        )
        several = pair.select(pl.col("part").n_unique().over("pair") > 1).to_series()
        self.raw.refuse(column, several, "one part for a user and an item is needed")
        return parts


def read_split(path: Source, separator: str | None = None) -> pl.DataFrame:
    """The table of a split file, as `SplitTable` holds it."""
    return parts_table(path, separator).frame


def parts_table(source: Any, separator: str | None = None, drop_incomplete: bool = False) -> SplitTable:
    """A split from a file or frame, or a `SplitTable`, which is given back.

    Args:
        source, separator: as `readers.read_events` takes them, and frames.
        drop_incomplete: drop rows whose user or item id is missing, instead of refusing them.

    Raises:
        ValueError: a needed column is missing, or a cell holds what it may not.
    """
    if isinstance(source, SplitTable):
        return source
    raw = raw_table(source, "the split", None, separator=separator)
    if {"history_items", "target_item"} & set(raw.columns):
        return _held_out_rows(raw, drop_incomplete)
    taken = find_columns(raw, ("user_id", "item_id"))
    for ours in ("user_id", "item_id"):
        need_column(raw, taken, ours)
    raw, incomplete = complete_rows(raw, [taken["user_id"], taken["item_id"]], drop_incomplete)
    others = [column for column in raw.frame.columns if column not in (*taken.values(), "user_id", "item_id")]
    columns = {ours: ids(raw, theirs, WAY_OUT) for ours, theirs in taken.items()} | {
        name: texts(raw, name) for name in others
    }
    return SplitTable(pl.DataFrame(columns), raw, taken, incomplete)


def _held_out_rows(raw: RawTable, drop_incomplete: bool) -> SplitTable:
    taken = find_columns(raw, HELD_OUT_COLUMNS)
    for ours in HELD_OUT_COLUMNS[1:]:
        need_column(raw, taken, ours)
    needed = [taken[ours] for ours in ("user_id", "target_item") if ours in taken]
    raw, incomplete = complete_rows(raw, needed, drop_incomplete)
    columns = {
        "history_items": id_lists(raw, "history_items"),
        "target_item": ids(raw, "target_item", WAY_OUT),
    }
    split = texts(raw, "split").replace(PART_NAMES)
    raw.refuse("split", ~split.is_in(["validation", "test"]), "val or test is needed")
    if "user_id" in taken:
        columns["user_id"] = ids(raw, taken["user_id"], WAY_OUT)
        raw.refuse(taken["user_id"], ~columns["user_id"].is_first_distinct(), "one row a user is needed")
    return SplitTable(pl.DataFrame(columns | {"split": split}), raw, taken, incomplete)
