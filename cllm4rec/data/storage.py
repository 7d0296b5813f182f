"""The folder of a dataset: events.parquet, users.parquet, items.parquet, dataset.json and a manifest of their hashes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import polars as pl
from typing_extensions import TypedDict

from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS
from cllm4rec.files.damage import reading
from cllm4rec.files.folders import read_folder, replace_folder
from cllm4rec.files.manifest import check_manifest, write_manifest
from cllm4rec.files.schema import STRICT, check_version, checked, json_text, read_json
from cllm4rec.messages import error_line

FORMAT_VERSION = 2
PARTS = ("train", "validation", "test", "history")
TIE_ORDER = ".tie_order"  # column of items.parquet: takes seconds to compute for a million items
MARKER = "dataset.json"


class RuleAccount(TypedDict):
    """What one rule dropped."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    rule: str
    users: int
    items: int
    events: int


class TableAccount(TypedDict):
    """How the rows of the items or users table meet the ids with events."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    repeated_rows: int
    rows_without_events: int
    without_a_row: int


class SplitAccount(TypedDict):
    """How the events were cut into parts."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    method: str
    rule: str
    seed: int
    column: NotRequired[str]
    shuffle_ties: NotRequired[int]
    rows_without_events: NotRequired[int]
    n_validation_rows: NotRequired[int]
    n_test_rows: NotRequired[int]


class DatasetAccount(TypedDict):
    """dataset.json. A dataset that `build_dataset` did not make has no account of columns, rules, tables and split."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    columns: NotRequired[dict[str, dict[str, str]]]
    columns_not_read: NotRequired[dict[str, str]]
    rules: NotRequired[list[RuleAccount]]
    tables: NotRequired[dict[str, TableAccount]]
    texts: NotRequired[dict[str, int]]
    n_items_without_text: NotRequired[int]
    n_users_below_3_events: NotRequired[int]
    split: NotRequired[SplitAccount]
    warnings: NotRequired[list[str]]
    format_version: int
    n_users: int
    n_items: int
    n_events: int
    n_events_by_part: dict[str, int]
    data_sha256: str
    split_sha256: str


@dataclass(frozen=True)
class StoredTables:
    """The tables of a dataset as they are stored.

    Attributes:
        events: user and item numbers, part; timestamp and review_text where the data has them.
        users: `user_id` and text columns.
        items: `item_id` and text columns.
        tie_order: int64 (n_items,).
        about: the content of dataset.json.
    """

    events: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    tie_order: np.ndarray
    about: dict[str, Any]


def save_tables(folder: Path, tables: StoredTables) -> None:
    """Write a dataset folder, whole or not at all.

    Raises:
        ValueError: the folder is something else, or cannot be written.
    """
    about = checked(tables.about | {"format_version": FORMAT_VERSION}, DatasetAccount, MARKER)
    with replace_folder(folder, MARKER) as new:
        tables.events.write_parquet(new / "events.parquet")
        tables.users.write_parquet(new / "users.parquet")
        tables.items.with_columns(pl.Series(TIE_ORDER, tables.tie_order)).write_parquet(new / "items.parquet")
        (new / MARKER).write_text(json_text(about), encoding="utf-8")
        write_manifest(new)


def load_tables(folder: Path) -> StoredTables:
    """Read a dataset folder, each file checked against its hash.

    Raises:
        ValueError: there is no dataset in the folder, or it is damaged or of another format version.
    """
    return read_folder(folder, _load_tables)


def _load_tables(folder: Path) -> StoredTables:
    if not (folder / MARKER).is_file():
        raise ValueError(f"{folder} is not a dataset folder (no {MARKER}): make one with cllm4rec.prepare")
    with reading(folder, "prepare the dataset again"):
        check_version(folder / MARKER, FORMAT_VERSION)
        with ThreadPoolExecutor(1) as pool:  # hashes files while they are decoded
            check = pool.submit(check_manifest, folder, whole=True)
            try:
                about: dict[str, Any] = read_json(folder / MARKER, DatasetAccount)
                events, users, items = (
                    pl.read_parquet(folder / f"{name}.parquet") for name in ("events", "users", "items")
                )
            finally:
                check.result()  # its error names the damaged file, before that of the decoder
        numbers = {"user": pl.Int64, "item": pl.Int64, "part": pl.UInt8}
        check_columns("events.parquet", events, numbers, {"timestamp": pl.Int64, "review_text": pl.String})
        check_columns("users.parquet", users, {"user_id": None}, dict.fromkeys(USER_TEXTS, pl.String))
        check_columns(
            "items.parquet",
            items,
            {"item_id": None, TIE_ORDER: pl.Int64},
            dict.fromkeys(ITEM_TEXTS, pl.String),
        )
        _check_numbers(events, items[TIE_ORDER])
        for what, table in (("n_users", users), ("n_items", items), ("n_events", events)):
            if about[what] != len(table):
                raise ValueError(f"{MARKER}: {what} is {about[what]:,}, and there are {len(table):,} rows")
        return StoredTables(
            events, users, items.drop(TIE_ORDER), items[TIE_ORDER].to_numpy(writable=True), about
        )


def check_columns(name: str, table: pl.DataFrame, needed: dict[str, Any], optional: dict[str, Any]) -> None:
    """Raise ValueError unless a table has the columns it needs, no others, of the right types and without empty cells.

    Args:
        name: of its file, for errors.
        table: the table.
        needed: name -> data type of the columns that have to be there; None for ids, which are text or int64.
        optional: likewise, of columns that may be missing.
    """
    kinds = needed | optional
    missing, odd = needed.keys() - set(table.columns), set(table.columns) - kinds.keys()
    if missing or odd:
        column = min(missing or odd)
        raise ValueError(
            f"{name} has {'no column' if missing else 'an unknown column'} {error_line(ValueError(column))}"
        )
    for column, found in table.schema.items():
        right = (pl.String, pl.Int64) if kinds[column] is None else (kinds[column],)
        if found not in right:
            raise ValueError(f"{name}: column {column} holds {found}, not {' or '.join(map(str, right))}")
        if table[column].null_count():
            raise ValueError(f"{name}: column {column} has empty cells")


def _check_numbers(events: pl.DataFrame, ties: pl.Series) -> None:
    """Raise ValueError if a part or the order of ties is not one; users and items are checked as `Interactions`."""
    parts = events["part"].to_numpy()
    if parts.max(initial=0) >= len(PARTS):
        raise ValueError(f"events.parquet: part {parts.max()} is unknown: there are {len(PARTS)}")
    order = ties.to_numpy()
    if len(order) and (
        order.min() < 0 or order.max() >= len(order) or not np.bincount(order, minlength=len(order)).all()
    ):
        raise ValueError(f"items.parquet: column {TIE_ORDER} is not a permutation")
