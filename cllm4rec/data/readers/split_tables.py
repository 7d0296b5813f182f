"""Split files: the part of each event (train, validation, test, history), or held-out rows."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from cllm4rec.data.readers.column_search import find_columns, raw_table, require_column
from cllm4rec.data.readers.columns import id_column, id_list_column, text_column
from cllm4rec.data.readers.incomplete import drop_incomplete_rows
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.tables import MISSING_ID_ADVICE
from cllm4rec.messages import join_names

HELD_OUT_COLUMNS = ("user_id", "history_items", "target_item", "split")  # one row for each user
PART_NAMES = {  # in a split file -> part
    **dict.fromkeys(("t", "train"), "train"),
    **dict.fromkeys(("v", "val", "valid", "validation"), "validation"),
    **dict.fromkeys(("e", "test"), "test"),
    **dict.fromkeys(("h", "history"), "history"),
}
EXPECTED_PART = "expected t, v, e, h or train, validation, test, history"


@dataclass(frozen=True)
class SplitTable:
    """A split file.

    Attributes:
        frame: `user_id`, `item_id` and columns of parts as text; or the `HELD_OUT_COLUMNS`. It is checked.
        raw: the source, with the same rows.
        mapping: column of this package -> column of the source.
        incomplete: numbers of rows dropped since they lack an id, as in `CheckedTable`.
    """

    frame: pl.DataFrame
    raw: RawTable
    mapping: dict[str, str]
    incomplete: dict[str, int] = field(default_factory=dict)

    @property
    def held_out(self) -> bool:
        """Whether the rows are held-out rows."""
        return "target_item" in self.frame.columns

    def unread(self, column: str) -> list[str]:
        """The source's columns that are not read if `column` holds the parts."""
        read = self.frame.columns if self.held_out else ("user_id", "item_id", column)
        columns = {source_column: name for name, source_column in self.mapping.items()}
        return [name for name in self.raw.columns if columns.get(name, name) not in read]

    def parts(self, column: str) -> pl.Series:
        """The part of each row by one of the columns.

        Raises:
            ValueError: there is no such column, or a cell is no part, or one event is in two parts.
        """
        if column not in self.frame.columns:
            others = join_names(name for name in self.frame.columns if name not in ("user_id", "item_id"))
            raise ValueError(f"{self.raw.name} has no column {column!r}: choose a `split_column` of {others}")
        names = self.frame[column]
        self.raw.refuse(column, ~names.is_in(list(PART_NAMES)), EXPECTED_PART)
        parts = names.replace_strict(PART_NAMES, return_dtype=pl.String)
        event = pl.struct(pl.col("user_id", "item_id").cast(pl.String)).alias("event")
        events = self.frame.select(event, parts.alias("part"))
        in_two_parts = events.select(pl.col("part").n_unique().over("event") > 1).to_series()
        self.raw.refuse(column, in_two_parts, "expected one part for a user and an item")
        return parts


def read_split_table(source: Any, separator: str | None = None, drop_incomplete: bool = False) -> SplitTable:
    """A split from a file, a frame or a `SplitTable`, which is returned as it is.

    Args:
        source, separator: as in `read_event_table`.
        drop_incomplete: drop rows whose user or item id is missing, instead of refusing them.

    Raises:
        ValueError: a required column is missing, or a cell is wrong.
    """
    if isinstance(source, SplitTable):
        return source
    raw = raw_table(source, "the split", None, separator=separator)
    if {"history_items", "target_item"} & set(raw.columns):
        return _held_out_table(raw, drop_incomplete)
    mapping = find_columns(raw, ("user_id", "item_id"))
    for column in ("user_id", "item_id"):
        require_column(raw, mapping, column)
    raw, incomplete = drop_incomplete_rows(raw, [mapping["user_id"], mapping["item_id"]], drop_incomplete)
    read = {*mapping.values(), "user_id", "item_id"}
    columns = {
        column: id_column(raw, source_column, MISSING_ID_ADVICE) for column, source_column in mapping.items()
    } | {name: text_column(raw, name) for name in raw.frame.columns if name not in read}
    return SplitTable(pl.DataFrame(columns), raw, mapping, incomplete)


def _held_out_table(raw: RawTable, drop_incomplete: bool) -> SplitTable:
    """Held-out rows: a user's history and the target item; without `user_id` each row is a new user."""
    mapping = find_columns(raw, HELD_OUT_COLUMNS)
    for column in HELD_OUT_COLUMNS[1:]:
        require_column(raw, mapping, column)
    id_columns = [mapping[column] for column in ("user_id", "target_item") if column in mapping]
    raw, incomplete = drop_incomplete_rows(raw, id_columns, drop_incomplete)
    columns = {
        "history_items": id_list_column(raw, "history_items"),
        "target_item": id_column(raw, "target_item", MISSING_ID_ADVICE),
    }
    split = text_column(raw, "split").replace(PART_NAMES)
    raw.refuse("split", ~split.is_in(["validation", "test"]), "expected val or test")
    if "user_id" in mapping:
        columns["user_id"] = id_column(raw, mapping["user_id"], MISSING_ID_ADVICE)
        is_repeated = ~columns["user_id"].is_first_distinct()
        raw.refuse(mapping["user_id"], is_repeated, "expected one row for each user")
    return SplitTable(pl.DataFrame(columns | {"split": split}), raw, mapping, incomplete)
