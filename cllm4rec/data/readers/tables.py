"""Tables of events, items and users from files and frames: columns are found, checked and converted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from cllm4rec.data.column_names import (
    ALIASES,
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    JOINERS,
    REPLACEMENTS,
    USER_COLUMNS,
    check_attributes,
)
from cllm4rec.data.readers.column_search import Names, find_columns, raw_table, require_column
from cllm4rec.data.readers.columns import id_column, id_list_column, number_column, text_column
from cllm4rec.data.readers.histories import history_column, with_history_events
from cllm4rec.data.readers.incomplete import drop_incomplete_rows
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import Source
from cllm4rec.data.readers.times import event_times, joined_times
from cllm4rec.messages import counted, join_names, printable

MISSING_ID_ADVICE = ": leave such rows out (`drop_incomplete` does so)"


@dataclass(frozen=True)
class CheckedTable:
    """A table whose columns are found, checked and converted.

    Attributes:
        frame: columns under this package's names.
        name: the source file or frame.
        mapping: column of this package -> column of the source; "date + time" if two were joined.
        unread: columns of the source that were not read.
        incomplete: numbers of `events`, `users` and `items` dropped since a row lacks an id; empty if none.
        n_from_histories: events without a row, which come from histories of targets.
    """

    frame: pl.DataFrame
    name: str
    mapping: dict[str, str]
    unread: tuple[str, ...] = ()
    incomplete: dict[str, int] = field(default_factory=dict)
    n_from_histories: int = 0

    def report(self) -> list[str]:
        """Lines about columns under other names, columns that were not read, and histories."""
        renamed = [
            f"{column} from {printable(source_column)}"
            for column, source_column in self.mapping.items()
            if column != source_column
        ]
        lines = [", ".join(renamed)] if renamed else []
        if self.unread:
            lines.append(f"columns not read: {join_names(self.unread)}")
        has_targets = {"user_id", "item_id"} <= self.mapping.keys()
        searched = dict.fromkeys((*self.mapping, *(("item_ids",) if has_targets else ())))
        alternatives = [
            f"{printable(name)} for {column}"
            for column in searched
            for name in ALIASES.get(column, ())
            if name in self.unread
        ]
        if alternatives:
            lines.append(f"columns that could be read instead, by name: {', '.join(alternatives)}")
        if self.n_from_histories:
            n_events = counted(self.n_from_histories, "event")
            lines.append(f"histories: {n_events} without a row, rating and time")
        return lines


def read_events(path: Source, names: Names | None = None, separator: str | None = None) -> pl.DataFrame:
    """Events of a file: `user_id`, `item_id`, and those of the other `EVENT_COLUMNS` that it has.

    Ids are text, or int64 if a typed file has whole numbers. Ratings become float64, timestamps int64
    seconds, positions int64. A row may also be a user's sequence (`item_ids`): it gives an event for
    each item.

    Args:
        path: a file, or a `TableFile` with options.
        names: column of this package -> column of the file, if it is none of the `ALIASES`.
        separator: of a text table, if it is not the one that the name tells.

    Raises:
        ValueError: a required column is missing, an id is empty or a number is wrong; the message names
            file, line and column.
    """
    return read_event_table(path, names, separator).frame


def read_items(path: Source, names: Names | None = None, separator: str | None = None) -> pl.DataFrame:
    """Items of a file: `item_id` and the text columns that it has; "" for missing texts."""
    return read_item_table(path, names, separator).frame


def read_users(path: Source, names: Names | None = None, separator: str | None = None) -> pl.DataFrame:
    """Users of a file: `user_id` and the text columns that it has; "" for missing texts."""
    return read_user_table(path, names, separator).frame


def read_event_table(
    source: Any,
    names: Names | None = None,
    separator: str | None = None,
    also: Sequence[str] = (),
    drop_incomplete: bool = False,
) -> CheckedTable:
    """Events of a file, of a pandas, Polars or Arrow table, or of a `CheckedTable`, which is returned.

    Args:
        source, names, separator: as in `read_events`.
        also: further columns to read as text.
        drop_incomplete: drop rows whose user or item id is missing, instead of refusing them.

    Raises:
        ValueError: as `read_events`.
    """
    if isinstance(source, CheckedTable):
        return source
    wanted = (*EVENT_COLUMNS, *also)
    raw = raw_table(source, "the events", wanted, names, separator)
    mapping = find_columns(raw, wanted, names)
    require_column(raw, mapping, "user_id")
    if "item_ids" not in mapping:
        require_column(raw, mapping, "item_id")
    is_sequence = "item_id" not in mapping
    id_columns = [mapping["user_id"], mapping["item_ids" if is_sequence else "item_id"]]
    raw, incomplete = drop_incomplete_rows(raw, id_columns, drop_incomplete)
    frame, mapping = _convert_events(raw, mapping, names or {})
    n_rows = len(frame)
    if is_sequence:
        order = pl.int_ranges(pl.col("item_ids").list.len(), dtype=pl.Int64).alias("position")
        frame = frame.with_columns(order).explode("item_ids", "position").rename({"item_ids": "item_id"})
    elif "item_ids" in mapping:
        frame = with_history_events(frame)
    n_from_histories = 0 if is_sequence else len(frame) - n_rows
    return CheckedTable(frame, raw.name, mapping, _unread(raw, mapping), incomplete, n_from_histories)


def _convert_events(
    raw: RawTable, mapping: Mapping[str, str], names: Names
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The columns of events, and the mapping without columns that hold something else."""
    columns: dict[str, pl.Series] = {}
    read = dict(mapping)
    for column, source_column in mapping.items():
        if column in ("user_id", "item_id"):
            columns[column] = id_column(raw, source_column, MISSING_ID_ADVICE)
        elif column == "item_ids" and "item_id" not in mapping:
            columns[column] = id_list_column(raw, source_column)
        elif column == "item_ids":
            histories = history_column(raw, source_column, columns["item_id"], named=column in names)
            if histories is None:
                del read[column]
            else:
                columns[column] = histories
        elif column in ("rating", "position"):
            columns[column] = number_column(raw, source_column, whole=column == "position")
        elif column == "timestamp":
            columns[column], read[column] = _times(raw, source_column, mapping, names)
        else:
            columns[column] = text_column(raw, source_column)
    return pl.DataFrame(columns), read


def read_item_table(
    source: Any,
    names: Names | None = None,
    separator: str | None = None,
    drop_incomplete: bool = False,
    attributes: Collection[str] = (),
) -> CheckedTable:
    """Items of a file or frame.

    Args:
        source, names, separator, drop_incomplete: as in `read_event_table`.
        attributes: further columns, which only conditions on items read.

    Raises:
        ValueError: as `read_event_table`, or an attribute is missing or has the name of another column.
    """
    check_attributes(attributes)
    table = _read_texts(source, "the items", ITEM_COLUMNS, names, separator, drop_incomplete, attributes)
    for name in attributes:
        if name not in table.frame.columns:
            read = next((column for column, read_from in table.mapping.items() if read_from == name), None)
            reason = "was not read" if read is None else f"is read as {read}: leave it out, and use {read}"
            raise ValueError(f"{table.name}: `item_attributes` {name!r} {reason}")
    return table


def read_user_table(
    source: Any, names: Names | None = None, separator: str | None = None, drop_incomplete: bool = False
) -> CheckedTable:
    """Users of a file or frame; the arguments are those of `read_event_table`."""
    return _read_texts(source, "the users", USER_COLUMNS, names, separator, drop_incomplete)


def read_all_tables(
    events: Any,
    items: Any,
    users: Any,
    also: Sequence[str],
    attributes: Collection[str],
    drop_incomplete: bool,
) -> tuple[CheckedTable, CheckedTable | None, CheckedTable | None]:
    """Events, items and users of files or frames; None for those that are not given.

    Args:
        events, items, users, also, drop_incomplete: as in `read_event_table`.
        attributes: as in `read_item_table`.

    Raises:
        ValueError: as these, or there are attributes without items.
    """
    if attributes and items is None:
        raise ValueError("`item_attributes` names columns of a table of items: give `items`")
    drop = drop_incomplete
    return (
        read_event_table(events, also=also, drop_incomplete=drop),
        None if items is None else read_item_table(items, drop_incomplete=drop, attributes=attributes),
        None if users is None else read_user_table(users, drop_incomplete=drop),
    )


def _read_texts(
    source: Any,
    content: str,
    wanted: tuple[str, ...],
    names: Names | None,
    separator: str | None,
    drop_incomplete: bool,
    attributes: Collection[str] = (),
) -> CheckedTable:
    """A table of an id, the first of the wanted columns, texts, and attributes, which it has to have."""
    if isinstance(source, CheckedTable):
        return source
    raw = raw_table(source, content, (*wanted, *attributes), names, separator)
    for name in attributes:
        if (names or {}).get(name, name) not in raw.columns:
            raise ValueError(
                f"{raw.name}: `item_attributes` {name!r} cannot be read: the table has "
                f"{join_names(raw.columns)}: name another column as {name}=COLUMN"
            )
    mapping = find_columns(raw, (*wanted, *attributes), names)
    id_name = wanted[0]
    require_column(raw, mapping, id_name)
    raw, incomplete = drop_incomplete_rows(raw, [mapping[id_name]], drop_incomplete)
    columns = {}
    for column, source_column in mapping.items():
        if column == id_name:
            columns[column] = id_column(raw, source_column, MISSING_ID_ADVICE)
            continue
        texts = text_column(raw, source_column, JOINERS.get(column) or " ")
        if column in REPLACEMENTS:
            texts = texts.str.replace_all(*REPLACEMENTS[column])
        columns[column] = texts
    return CheckedTable(pl.DataFrame(columns), raw.name, mapping, _unread(raw, mapping), incomplete)


def _times(
    raw: RawTable, source_column: str, mapping: Mapping[str, str], names: Names
) -> tuple[pl.Series, str]:
    """Seconds of each event, and the column or columns that they came from."""
    columns = [source_column]
    if "timestamp" not in names:
        others = {other for column, other in mapping.items() if column != "timestamp"}
        columns = [name for name in ALIASES["timestamp"] if name in raw.columns and name not in others]
    elif source_column not in raw.columns:
        date, clock = source_column.split("+")
        return joined_times(raw, date, clock), f"{date} + {clock}"
    times, read = event_times(raw, columns)
    return times, " + ".join(read)


def _unread(raw: RawTable, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that were not read."""
    read = set(mapping.values()) | set(mapping.get("timestamp", "").split(" + "))
    return tuple(name for name in raw.columns if name not in read)
