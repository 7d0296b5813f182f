"""The folder of a dataset: {events,users,items}.parquet, dataset.json and a manifest of hashes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
from typing_extensions import TypedDict

from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS, attributes_of
from cllm4rec.data.description import DESCRIPTION_KEYS, DatasetDescription, DatasetHashes
from cllm4rec.data.interactions import Interactions
from cllm4rec.files.damage import reading
from cllm4rec.files.folders import read_folder, replace_folder
from cllm4rec.files.manifest import check_manifest, write_manifest
from cllm4rec.files.schema import STRICT, checked, json_text, read_json
from cllm4rec.messages import error_line

FORMAT_VERSION = 2
PARTS = ("train", "validation", "test", "history")
# Column of items.parquet with the cached tie order: computing it for a million items takes seconds.
TIE_ORDER = ".tie_order"
ITEMS = "items.parquet"
MARKER = "dataset.json"


class _AnyKeys(TypedDict):
    """dataset.json before its keys are checked."""

    __pydantic_config__ = STRICT | {"extra": "allow"}  # type: ignore[misc]

    format_version: int


@dataclass(frozen=True)
class DatasetCounts:
    """The keys of dataset.json that every dataset has, with a description or without."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    format_version: int
    n_users: int
    n_items: int
    n_events: int
    n_events_by_part: dict[str, int]
    data_sha256: str
    split_sha256: str


class StoredTables(NamedTuple):
    """The content of a dataset folder, in the order of the fields of `Dataset`.

    Attributes:
        interactions, users, items, part, description: as in `Dataset`.
        tie_order: int64 (n_items,).
        hashes: of the content and the split.
    """

    interactions: Interactions
    users: pl.DataFrame
    items: pl.DataFrame
    part: np.ndarray
    description: DatasetDescription | None
    tie_order: np.ndarray
    hashes: DatasetHashes


def save_tables(folder: Path, tables: StoredTables) -> None:
    """Write a dataset folder, whole or not at all.

    Raises:
        ValueError: the folder is something else, or cannot be written.
    """
    described = {} if tables.description is None else tables.description.to_json()
    events, part = tables.interactions, tables.part
    columns: dict[str, Any] = {"user": events.users, "item": events.items, "part": part}
    columns |= {} if events.times is None else {"timestamp": events.times}
    columns |= {} if events.reviews is None else {"review_text": events.reviews}
    counts = DatasetCounts(
        format_version=FORMAT_VERSION,
        n_users=events.n_users,
        n_items=events.n_items,
        n_events=len(events),
        n_events_by_part={name: int((part == number).sum()) for number, name in enumerate(PARTS)},
        data_sha256=tables.hashes.data_sha256,
        split_sha256=tables.hashes.split_sha256,
    )
    with replace_folder(folder, MARKER) as new:
        pl.DataFrame(columns).write_parquet(new / "events.parquet")
        tables.users.write_parquet(new / "users.parquet")
        write_items(new / ITEMS, tables.items, tables.tie_order)
        (new / MARKER).write_text(json_text(described | asdict(counts)), encoding="utf-8")
        write_manifest(new)


def load_tables(folder: Path) -> StoredTables:
    """Read a dataset folder, each file checked against its hash.

    Raises:
        ValueError: there is no dataset in the folder, or it is damaged or of another format version.
    """
    return read_folder(folder, _load_tables)


def _load_tables(folder: Path) -> StoredTables:
    if not (folder / MARKER).is_file():
        raise ValueError(f"{folder} is not a dataset folder (no {MARKER}): make one with cllm4rec prepare")
    with reading(folder, "prepare the dataset again"):
        description, counts = _read_description(folder / MARKER)
        with ThreadPoolExecutor(1) as pool:  # hashes the files while they are decoded
            check = pool.submit(check_manifest, folder, whole=True)
            try:
                events, users, item_table = (
                    pl.read_parquet(folder / name) for name in ("events.parquet", "users.parquet", ITEMS)
                )
            finally:
                check.result()  # its error names the damaged file, and precedes the decoder's
        items, tie_order = checked_items(item_table)
        _check_tables(events, users, items, counts)
        interactions = Interactions(
            events["user"].to_numpy(),
            events["item"].to_numpy(),
            len(users),
            len(items),
            events["timestamp"].to_numpy() if "timestamp" in events.columns else None,
            events["review_text"] if "review_text" in events.columns else None,
        )
    hashes = DatasetHashes(counts.data_sha256, counts.split_sha256)
    part = events["part"].to_numpy()
    return StoredTables(interactions, users, items, part, description, tie_order, hashes)


def _read_description(path: Path) -> tuple[DatasetDescription | None, DatasetCounts]:
    """Read dataset.json, one object with the keys of both."""
    content = dict(read_json(path, _AnyKeys, FORMAT_VERSION))
    described = {name: content.pop(name) for name in DESCRIPTION_KEYS if name in content}
    description = checked(described, DatasetDescription, path.name) if described else None
    return description, checked(content, DatasetCounts, path.name)


def _check_tables(
    events: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, counts: DatasetCounts
) -> None:
    """Raise ValueError unless the tables have the right columns, values and lengths."""
    numbers = {"user": pl.Int64, "item": pl.Int64, "part": pl.UInt8}
    check_columns("events.parquet", events, numbers, {"timestamp": pl.Int64, "review_text": pl.String})
    check_columns("users.parquet", users, {"user_id": None}, dict.fromkeys(USER_TEXTS, pl.String))
    _check_parts(events["part"].to_numpy())
    sizes = (
        ("n_users", counts.n_users, users),
        ("n_items", counts.n_items, items),
        ("n_events", counts.n_events, events),
    )
    for key, n, table in sizes:
        if n != len(table):
            raise ValueError(f"{MARKER}: {key} is {n:,}, and there are {len(table):,} rows")


def write_items(file: Path, items: pl.DataFrame, tie_order: np.ndarray) -> None:
    """Write the table of the items of a dataset or a model, with their tie order (n_items,)."""
    items.with_columns(pl.Series(TIE_ORDER, tie_order)).write_parquet(file)


def checked_items(table: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """The items and their tie order, int64 (n_items,), of a table that `write_items` wrote.

    Raises:
        ValueError: a column is missing, of another type, or has an impossible value.
    """
    needed = {"item_id": None, TIE_ORDER: pl.Int64}
    attributes = [name for name in attributes_of(table.columns) if name.isidentifier()]
    check_columns(ITEMS, table, needed, dict.fromkeys([*ITEM_TEXTS, *attributes], pl.String))
    tie_order = table[TIE_ORDER].to_numpy(writable=True)
    _check_tie_order(tie_order)
    return table.drop(TIE_ORDER), tie_order


def check_columns(name: str, table: pl.DataFrame, needed: dict[str, Any], optional: dict[str, Any]) -> None:
    """Raise ValueError unless a table has the right columns, of the right types, without empty cells.

    Args:
        name: of its file, for errors.
        table: the table.
        needed: name -> data type of the required columns; None for ids, which are text or int64.
        optional: name -> data type of the columns that may be missing.
    """
    types = needed | optional
    missing, unknown = needed.keys() - set(table.columns), set(table.columns) - types.keys()
    if missing or unknown:
        column = min(missing or unknown)
        raise ValueError(
            f"{name} has {'no column' if missing else 'an unknown column'} {error_line(ValueError(column))}"
        )
    for column, data_type in table.schema.items():
        allowed = (pl.String, pl.Int64) if types[column] is None else (types[column],)
        if data_type not in allowed:
            raise ValueError(
                f"{name}: column {column} holds {data_type}, not {' or '.join(map(str, allowed))}"
            )
        if table[column].null_count():
            raise ValueError(f"{name}: column {column} has empty cells")


def _check_parts(part: np.ndarray) -> None:
    """Raise ValueError unless each number (n_events,) is an index of `PARTS`."""
    if part.max(initial=0) >= len(PARTS):
        raise ValueError(f"events.parquet: part {part.max()} is unknown: there are {len(PARTS)}")


def _check_tie_order(order: np.ndarray) -> None:
    """Raise ValueError unless `order` (n_items,) is a permutation of 0 .. n_items - 1."""
    n = len(order)
    if n and (order.min() < 0 or order.max() >= n or not np.bincount(order, minlength=n).all()):
        raise ValueError(f"{ITEMS}: column {TIE_ORDER} is not a permutation")
