"""Tables of events, items and users from files and frames: their columns found, checked and brought to one form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from cllm4rec.data.column_names import ALIASES, EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS
from cllm4rec.data.readers.columns import id_lists, ids, numbers, texts
from cllm4rec.data.readers.formats import Source, TableFile, read_raw
from cllm4rec.data.readers.frames import raw_frame
from cllm4rec.data.readers.incomplete import complete_rows
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.sequences import history_lists, with_histories
from cllm4rec.data.readers.times import event_times, joined_times
from cllm4rec.messages import counted, join_names, printable

WAY_OUT = ": leave such rows out, as prepare --drop-incomplete and build_dataset(drop_incomplete=True) do"


@dataclass(frozen=True)
class CheckedTable:
    """A table in this package's form.

    Attributes:
        frame: columns under this package's names, checked.
        name: of the file or frame it came from.
        taken: this package's name of each column -> its name there; "date + time" where two columns were joined.
        unread: names of the columns that were not read.
        incomplete: how many `events`, `users` and `items` were dropped because a row has no id; empty if none.
        n_from_histories: events that come from histories beside a target and have no row.
    """

    frame: pl.DataFrame
    name: str
    taken: dict[str, str]
    unread: tuple[str, ...] = ()
    incomplete: dict[str, int] = field(default_factory=dict)
    n_from_histories: int = 0

    def account(self) -> list[str]:
        """What was read under another name and what was not read, a line each."""
        renamed = [
            f"{ours} from {printable(theirs)}" for ours, theirs in self.taken.items() if ours != theirs
        ]
        lines = [", ".join(renamed)] if renamed else []
        if self.unread:
            lines.append(f"columns not read: {join_names(self.unread)}")
        looked = dict.fromkeys(
            (*self.taken, *(("item_ids",) if {"user_id", "item_id"} <= self.taken.keys() else ()))
        )
        rivals = [
            f"{printable(name)} for {ours}"
            for ours in looked
            for name in ALIASES.get(ours, ())
            if name in self.unread
        ]
        if rivals:
            lines.append(f"columns that could be read instead, by name: {', '.join(rivals)}")
        if self.n_from_histories:
            lines.append(
                f"histories: {counted(self.n_from_histories, 'event')} without a row, rating and time"
            )
        return lines


def read_events(
    path: Source, names: Mapping[str, str] | None = None, separator: str | None = None
) -> pl.DataFrame:
    """Events of a file: `user_id`, `item_id` and those of rating, timestamp, position and review_text that are there.

    Ids are text, or int64 where a typed file has whole numbers; ratings become float64, timestamps int64 seconds,
    positions int64. A row may also be a user's sequence (`item_ids`, spaces between): one event an item then.

    Args:
        path: a file, or a `TableFile`, which says more than its name.
        names: this package's name of a column -> its name in the file, where it is not one of `ALIASES`.
        separator: of a text table, if not the one its name says.

    Raises:
        ValueError: a needed column is missing, an id is empty or a number is not one; the message names file, line, column.
    """
    return read_event_table(path, names, separator).frame


def read_items(
    path: Source, names: Mapping[str, str] | None = None, separator: str | None = None
) -> pl.DataFrame:
    """Items of a file: `item_id` and the text columns that are there, texts "" where empty."""
    return read_item_table(path, names, separator).frame


def read_users(
    path: Source, names: Mapping[str, str] | None = None, separator: str | None = None
) -> pl.DataFrame:
    """Users of a file: `user_id` and the text columns that are there, texts "" where empty."""
    return read_user_table(path, names, separator).frame


def read_event_table(
    source: Any,
    names: Mapping[str, str] | None = None,
    separator: str | None = None,
    also: Sequence[str] = (),
    drop_incomplete: bool = False,
) -> CheckedTable:
    """Events of a file, of a pandas, Polars or Arrow table, or of a `CheckedTable`, which is given back.

    Args:
        source, names, separator: as `read_events` takes them.
        also: further columns to take as text.
        drop_incomplete: drop rows whose user or item id is missing, instead of refusing them.
    """
    if isinstance(source, CheckedTable):
        return source
    wanted = (*EVENT_COLUMNS, *also)
    raw = raw_table(source, "the events", wanted, names, separator)
    taken = _event_columns(raw, wanted, names)
    sequences = "item_id" not in taken
    raw, incomplete = complete_rows(
        raw, [taken["user_id"], taken["item_ids" if sequences else "item_id"]], drop_incomplete
    )
    columns = {}
    for ours, theirs in list(taken.items()):
        if ours in ("user_id", "item_id"):
            columns[ours] = ids(raw, theirs, WAY_OUT)
        elif ours == "item_ids":
            lists = (
                id_lists(raw, theirs)
                if sequences
                else history_lists(raw, theirs, columns["item_id"], ours in (names or {}))
            )
            if lists is None:
                del taken[ours]
            else:
                columns[ours] = lists
        elif ours in ("rating", "position"):
            columns[ours] = numbers(raw, theirs, whole=ours == "position")
        elif ours == "timestamp":
            columns[ours], taken[ours] = _times(raw, theirs, taken, names)
        else:
            columns[ours] = texts(raw, theirs)
    frame = pl.DataFrame(columns)
    n = len(frame)
    if sequences:
        order = pl.int_ranges(pl.col("item_ids").list.len(), dtype=pl.Int64).alias("position")
        frame = frame.with_columns(order).explode("item_ids", "position").rename({"item_ids": "item_id"})
    elif "item_ids" in taken:
        frame = with_histories(frame)
    return CheckedTable(
        frame, raw.name, taken, _unread(raw, taken), incomplete, 0 if sequences else len(frame) - n
    )


def read_item_table(
    source: Any,
    names: Mapping[str, str] | None = None,
    separator: str | None = None,
    drop_incomplete: bool = False,
) -> CheckedTable:
    """Items of a file or frame, as `read_event_table` takes them."""
    return _text_table(source, "the items", ITEM_COLUMNS, names, separator, drop_incomplete)


def read_user_table(
    source: Any,
    names: Mapping[str, str] | None = None,
    separator: str | None = None,
    drop_incomplete: bool = False,
) -> CheckedTable:
    """Users of a file or frame, as `read_event_table` takes them."""
    return _text_table(source, "the users", USER_COLUMNS, names, separator, drop_incomplete)


def _text_table(
    source: Any,
    what: str,
    wanted: tuple[str, ...],
    names: Mapping[str, str] | None,
    separator: str | None,
    drop_incomplete: bool,
) -> CheckedTable:
    if isinstance(source, CheckedTable):
        return source
    raw = raw_table(source, what, wanted, names, separator)
    taken = find_columns(raw, wanted, names)
    need_column(raw, taken, wanted[0])
    raw, incomplete = complete_rows(raw, [taken[wanted[0]]], drop_incomplete)
    columns = {
        ours: texts(raw, theirs, _between(ours) or " ") if ours != wanted[0] else ids(raw, theirs, WAY_OUT)
        for ours, theirs in taken.items()
    }
    if "year" in columns:  # pandas writes 1999.0 where a year is missing
        columns["year"] = columns["year"].str.replace(r"^(\d+)\.0+$", "${1}")
    if "categories" in columns:
        columns["categories"] = columns["categories"].str.replace_all("|", ", ", literal=True)
    return CheckedTable(pl.DataFrame(columns), raw.name, taken, _unread(raw, taken), incomplete)


def _event_columns(raw: RawTable, wanted: Sequence[str], names: Mapping[str, str] | None) -> dict[str, str]:
    """This package's name -> the table's of a table of events or of sequences."""
    taken = find_columns(raw, wanted, names)
    need_column(raw, taken, "user_id")
    if "item_ids" not in taken:
        need_column(raw, taken, "item_id")
    return taken


def _times(
    raw: RawTable, theirs: str, taken: dict[str, str], names: Mapping[str, str] | None
) -> tuple[pl.Series, str]:
    """Seconds of each event and the name of the column, or columns, that they came from."""
    columns = [theirs]
    if "timestamp" not in (names or {}):
        others = {column for ours, column in taken.items() if ours != "timestamp"}
        columns = [name for name in ALIASES["timestamp"] if name in raw.columns and name not in others]
    elif theirs not in raw.columns:
        date, clock = theirs.split("+")
        return joined_times(raw, date, clock), f"{date} + {clock}"
    times, read = event_times(raw, columns)
    return times, " + ".join(read)


def _unread(raw: RawTable, taken: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that were not read."""
    read = set(taken.values()) | set(taken.get("timestamp", "").split(" + "))
    return tuple(name for name in raw.columns if name not in read)


def column_names(text: str | None, flag: str, ours: Sequence[str]) -> dict[str, str]:
    """`user_id=buyer,item_id=sku` as a dict.

    Args:
        text: what was typed, or None.
        flag: the flag it was typed at, for errors.
        ours: the names that may stand before the `=`.
    """
    names: dict[str, str] = {}
    for pair in (text or "").split(",") if text is not None else ():
        name, equals, theirs = pair.strip().partition("=")
        if not (equals and theirs):
            raise ValueError(f"{flag} {pair!r}: write it as OUR_NAME=COLUMN_OF_THE_FILE, with commas between")
        if name not in ours or name in names:
            raise ValueError(f"{flag} {pair!r}: {name!r} may be, once, one of {', '.join(ours)}")
        names[name] = theirs
    return names


def raw_table(
    source: Any,
    what: str,
    wanted: Sequence[str] | None,
    names: Mapping[str, str] | None = None,
    separator: str | None = None,
) -> RawTable:
    """The table of a file (text, JSON and Parquet) or of a frame; of typed tables, only columns that may be wanted."""
    marks: dict[str, str | None] | None = None
    if wanted is not None:
        marks = {alias: _between(ours) for ours in wanted for alias in ALIASES.get(ours, (ours,))}
        marks |= {
            part: _between(ours)
            for ours, theirs in (names or {}).items()
            for part in (theirs, *theirs.split("+"))
        }
    if isinstance(source, Source):
        file = source if isinstance(source, TableFile) else TableFile(source)
        file = replace(file, holds=what, separator=file.separator if separator is None else separator)
        ours = (wanted or ("",))[0]
        id_names = (*((names[ours],) if names and ours in names else ()), *ALIASES.get(ours, ()))
        raw = read_raw(file, marks, id_names)
        if raw.frame.is_empty() and raw.frame.columns:
            raise ValueError(f"{raw.name}: the file has a header and no rows")
        return raw
    return raw_frame(source, what, None if marks is None else set(marks))


def _between(ours: str) -> str | None:
    """What to put between the texts of a list; None for a column that holds no text."""
    if ours in ("review_text", *USER_COLUMNS[1:], *ITEM_COLUMNS[1:]):
        return ", " if ours == "categories" else " "
    return None


def find_columns(
    raw: RawTable, wanted: Sequence[str], names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """This package's name -> the table's, of the wanted columns that the table has."""
    found: dict[str, str] = dict(names or {})
    for ours, theirs in found.items():
        parts = theirs.split("+") if ours == "timestamp" and theirs not in raw.columns else [theirs]
        if not set(parts) <= set(raw.columns) or len(parts) > 2 or ours not in wanted:
            ways = f"it has {join_names(raw.columns)}; what can be taken is {', '.join(wanted)}{raw.hint}"
            raise ValueError(f"{raw.name}: {ours!r} cannot be taken from a column {theirs!r}: {ways}")
    for ours in wanted:
        there = next((alias for alias in ALIASES.get(ours, (ours,)) if alias in raw.columns), None)
        if ours not in found and there is not None and there not in found.values():
            found[ours] = there
    return {ours: found[ours] for ours in wanted if ours in found}


def need_column(raw: RawTable, taken: Mapping[str, str], ours: str) -> None:
    if ours not in taken:
        looked = ", ".join(ALIASES.get(ours, (ours,)))
        raise ValueError(
            f"{raw.name}: no column for {ours}: looked for {looked}; it has {join_names(raw.columns)}{raw.hint}"
        )
