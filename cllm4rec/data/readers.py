"""Tables of events, items and users from files and frames: their columns found, checked and brought to one form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from cllm4rec.data.columns import id_lists, ids, numbers, seconds, texts
from cllm4rec.data.formats import Source, TableFile, read_raw
from cllm4rec.data.frames import raw_frame
from cllm4rec.data.raw import Raw, listed, shown

ALIASES = {  # a column of this package <- names under which it is found, the first present one wins
    "user_id": ("user_id", "user", "userId", "userid", "customer_id", "reviewerID"),
    "item_id": (
        "item_id",
        "item",
        "itemId",
        "itemid",
        "movieId",
        "movie_id",
        "product_id",
        "business_id",
        "parent_asin",
        "asin",
    ),
    "rating": ("rating", "overall", "stars", "score"),
    "timestamp": ("timestamp", "time", "unixReviewTime", "date"),
    "review_text": ("review_text", "review", "reviewText", "text"),
    "title": ("title", "name", "item_name", "movie_title"),
    "categories": ("categories", "category", "genres", "genre", "class"),
    "brand": ("brand", "store"),
    "year": ("year", "release_year"),
    "biography": ("biography", "bio"),
}
EVENT_COLUMNS = ("user_id", "item_id", "item_ids", "rating", "timestamp", "position", "review_text")
ITEM_COLUMNS = ("item_id", "title", "description", "categories", "brand", "year")
USER_COLUMNS = ("user_id", "biography")
HELD_OUT_COLUMNS = ("user_id", "history_items", "target_item", "split")  # a user in a row: what came before, what to find
PART_NAMES = {  # how a split file may say it -> the part
    **dict.fromkeys(("t", "train"), "train"),
    **dict.fromkeys(("v", "val", "valid", "validation"), "validation"),
    **dict.fromkeys(("e", "test"), "test"),
    **dict.fromkeys(("h", "history"), "history"),
}


@dataclass(frozen=True)
class Table:
    """A table in this package's form.

    Attributes:
        frame: columns under this package's names, checked.
        name: of the file or frame it came from.
        taken: this package's name of each column -> its name there.
    """

    frame: pl.DataFrame
    name: str
    taken: dict[str, str]

    def renamed(self) -> str:
        """Which columns have another name there; "" if none has."""
        return ", ".join(f"{ours} from {shown(theirs)}" for ours, theirs in self.taken.items() if ours != theirs)


def read_events(path: Source, names: Mapping[str, str] | None = None, separator: str | None = None) -> pl.DataFrame:
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
    return event_table(path, names, separator).frame


def read_items(path: Source, names: Mapping[str, str] | None = None, separator: str | None = None) -> pl.DataFrame:
    """Items of a file: `item_id` and the text columns that are there, texts "" where empty."""
    return item_table(path, names, separator).frame


def read_users(path: Source, names: Mapping[str, str] | None = None, separator: str | None = None) -> pl.DataFrame:
    """Users of a file: `user_id` and the text columns that are there, texts "" where empty."""
    return user_table(path, names, separator).frame


def event_table(
    source: Any, names: Mapping[str, str] | None = None, separator: str | None = None, also: Sequence[str] = ()
) -> Table:
    """Events of a file, of a pandas, Polars or Arrow table, or of a `Table`, which is given back.

    Args:
        source, names, separator: as `read_events` takes them.
        also: further columns to take as text.
    """
    if isinstance(source, Table):
        return source
    wanted = (*EVENT_COLUMNS, *also)
    raw = _raw(source, "the events", wanted, names, separator)
    taken = _find(raw, wanted, names)
    _need(raw, taken, "user_id")
    sequences = "item_ids" in taken and "item_id" not in taken
    if not sequences:
        _need(raw, taken, "item_id")
        taken.pop("item_ids", None)
    columns = {}
    for ours, theirs in taken.items():
        if ours in ("user_id", "item_id"):
            columns[ours] = ids(raw, theirs)
        elif ours == "item_ids":
            columns[ours] = id_lists(raw, theirs)
        elif ours in ("rating", "position"):
            columns[ours] = numbers(raw, theirs, whole=ours == "position")
        elif ours == "timestamp":
            columns[ours] = seconds(raw, theirs)
        else:
            columns[ours] = texts(raw, theirs)
    frame = pl.DataFrame(columns)
    if sequences:
        order = pl.int_ranges(pl.col("item_ids").list.len(), dtype=pl.Int64).alias("position")
        frame = frame.with_columns(order).explode("item_ids", "position").rename({"item_ids": "item_id"})
    return Table(frame, raw.name, taken)


def item_table(source: Any, names: Mapping[str, str] | None = None, separator: str | None = None) -> Table:
    """Items of a file or frame, as `event_table` takes them."""
    return _text_table(source, "the items", ITEM_COLUMNS, names, separator)


def user_table(source: Any, names: Mapping[str, str] | None = None, separator: str | None = None) -> Table:
    """Users of a file or frame, as `event_table` takes them."""
    return _text_table(source, "the users", USER_COLUMNS, names, separator)


def _text_table(
    source: Any, what: str, wanted: tuple[str, ...], names: Mapping[str, str] | None, separator: str | None
) -> Table:
    if isinstance(source, Table):
        return source
    raw = _raw(source, what, wanted, names, separator)
    taken = _find(raw, wanted, names)
    _need(raw, taken, wanted[0])
    columns = {
        ours: texts(raw, theirs, _between(ours) or " ") if ours != wanted[0] else ids(raw, theirs)
        for ours, theirs in taken.items()
    }
    if "categories" in columns:
        columns["categories"] = columns["categories"].str.replace_all("|", ", ", literal=True)
    return Table(pl.DataFrame(columns), raw.name, taken)


@dataclass(frozen=True)
class SplitTable:
    """A split file: `user_id`, `item_id` and columns of parts as text; or held-out rows, the `HELD_OUT_COLUMNS`."""

    frame: pl.DataFrame
    raw: Raw

    @property
    def held_out(self) -> bool:
        return "target_item" in self.frame.columns

    def parts(self, column: str) -> pl.Series:
        """The part of each row by one of the columns.

        Raises:
            ValueError: the column is missing or holds something else.
        """
        if column not in self.frame.columns:
            others = listed(name for name in self.frame.columns if name not in ("user_id", "item_id"))
            raise ValueError(f"{self.raw.name} has no column {column!r}: choose one of {others} (--split-column)")
        names = self.frame[column]
        self.raw.refuse(column, ~names.is_in(list(PART_NAMES)), "t, v, e, h or train, validation, test, history is needed")
        parts = names.replace_strict(PART_NAMES, return_dtype=pl.String)
        pair = self.frame.select(pl.struct(pl.col("user_id", "item_id").cast(pl.String)).alias("pair"), parts.alias("part"))
        several = pair.select(pl.col("part").n_unique().over("pair") > 1).to_series()
        self.raw.refuse(column, several, "one part for a user and an item is needed")
        return parts


def read_split(path: Source, separator: str | None = None) -> pl.DataFrame:
    """The table of a split file, as `SplitTable` holds it."""
    return parts_table(path, separator).frame


def parts_table(source: Any, separator: str | None = None) -> SplitTable:
    """A split from a file or frame, or a `SplitTable`, which is given back.

    Raises:
        ValueError: a needed column is missing, or a cell holds what it may not.
    """
    if isinstance(source, SplitTable):
        return source
    raw = _raw(source, "the split", None, separator=separator)
    if {"history_items", "target_item"} & set(raw.columns):
        return _held_out_rows(raw)
    taken = _find(raw, ("user_id", "item_id"))
    for ours in ("user_id", "item_id"):
        _need(raw, taken, ours)
    others = [column for column in raw.frame.columns if column not in (*taken.values(), "user_id", "item_id")]
    columns = {ours: ids(raw, theirs) for ours, theirs in taken.items()} | {name: texts(raw, name) for name in others}
    return SplitTable(pl.DataFrame(columns), raw)


def _held_out_rows(raw: Raw) -> SplitTable:
    taken = _find(raw, HELD_OUT_COLUMNS)
    for ours in HELD_OUT_COLUMNS[1:]:
        _need(raw, taken, ours)
    columns = {"history_items": id_lists(raw, "history_items"), "target_item": ids(raw, "target_item")}
    split = texts(raw, "split").replace(PART_NAMES)
    raw.refuse("split", ~split.is_in(["validation", "test"]), "val or test is needed")
    if "user_id" in taken:
        columns["user_id"] = ids(raw, taken["user_id"])
        raw.refuse(taken["user_id"], ~columns["user_id"].is_first_distinct(), "one row a user is needed")
    return SplitTable(pl.DataFrame(columns | {"split": split}), raw)


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


def _raw(
    source: Any, what: str, wanted: Sequence[str] | None, names: Mapping[str, str] | None = None, separator: str | None = None
) -> Raw:
    """The table of a file (text, JSON and Parquet) or of a frame; of typed tables, only columns that may be wanted."""
    marks: dict[str, str | None] | None = None
    if wanted is not None:
        marks = {alias: _between(ours) for ours in wanted for alias in ALIASES.get(ours, (ours,))}
        marks |= {theirs: _between(ours) for ours, theirs in (names or {}).items()}
    if isinstance(source, Source):
        file = source if isinstance(source, TableFile) else TableFile(source)
        if separator is not None:
            file = replace(file, separator=separator)
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


def _find(raw: Raw, wanted: Sequence[str], names: Mapping[str, str] | None = None) -> dict[str, str]:
    """This package's name -> the table's, of the wanted columns that the table has."""
    found: dict[str, str] = dict(names or {})
    for ours, theirs in found.items():
        if theirs not in raw.columns or ours not in wanted:
            ways = f"it has {listed(raw.columns)}; what can be taken is {', '.join(wanted)}{raw.hint}"
            raise ValueError(f"{raw.name}: {ours!r} cannot be taken from a column {theirs!r}: {ways}")
    for ours in wanted:
        there = next((alias for alias in ALIASES.get(ours, (ours,)) if alias in raw.columns), None)
        if ours not in found and there is not None and there not in found.values():
            found[ours] = there
    return {ours: found[ours] for ours in wanted if ours in found}


def _need(raw: Raw, taken: Mapping[str, str], ours: str) -> None:
    if ours not in taken:
        looked = ", ".join(ALIASES.get(ours, (ours,)))
        raise ValueError(f"{raw.name}: no column for {ours}: looked for {looked}; it has {listed(raw.columns)}{raw.hint}")
