"""Files of item vectors: Parquet with ids, or .npy with rows in the order of the dataset's items."""

import logging
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.data.ids import IdMap
from cllm4rec.files.damage import READ_ERRORS
from cllm4rec.files.writing import check_file, replace_file
from cllm4rec.messages import counted, error_line, escaped, join_names, shorten
from cllm4rec.models.readings.item_texts import ItemVectors

log = logging.getLogger("cllm4rec")

ID, VECTOR = "item_id", "vector"  # columns of a table of vectors
SUFFIXES = (".parquet", ".npy")


def check_vectors_name(path: str) -> None:
    """Refuse a file of vectors whose format is unknown.

    Raises:
        ValueError: the suffix is not one of SUFFIXES.
    """
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"{path}: let its name end in .parquet or .npy, which says the kind of file")


def read_vectors(path: str | Path, items: IdMap) -> ItemVectors:
    """The vectors of a file, for the items of a dataset.

    A Parquet file has the columns `item_id` and `vector`, lists of equal length; an item without a vector has
    null. Rows of other items are left out. The rows of a .npy file are those of `dataset.items`, and a line
    on the logger `cllm4rec` names the item of the first row.

    Args:
        path: the file.
        items: ids of the dataset.

    Raises:
        ValueError: the file cannot be read, an item is missing or repeated, or a vector is not finite numbers
            or of another length. The message names the file and the item.
    """
    check_vectors_name(str(path))
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        read = _npy_array if Path(path).suffix == ".npy" else _table
        present, values = read(Path(path), items)
    except _WrongVectorsError as error:
        raise ValueError(f"{path}: {error}") from error
    except READ_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error_line(error)}") from error
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(narrow).all(1))
    if len(wrong):
        item = items.ids.filter(pl.Series(present))[int(wrong[0])]
        raise ValueError(
            f"{path}: the vector of item {_shown(item)} is not of finite numbers, or too large for float32"
        )
    vectors = np.zeros((len(items), narrow.shape[1]), dtype=np.float32)
    vectors[present] = narrow
    return ItemVectors(items.ids, vectors, present)


def write_vectors(vectors: ItemVectors, path: str) -> None:
    """Write vectors as `read_vectors` reads them; the file is whole or absent.

    Raises:
        ValueError: the file cannot be written.
    """
    check_vectors_name(path)
    check_file(path)
    with replace_file(Path(path)) as new:
        if Path(path).suffix == ".npy":
            with new.open("wb") as opened:
                np.save(opened, vectors.values, allow_pickle=False)
        else:
            column = pl.Series(VECTOR, vectors.values, dtype=pl.Array(pl.Float32, vectors.values.shape[1]))
            table = pl.DataFrame({ID: vectors.item_ids, VECTOR: column})
            table.with_columns(
                pl.when(pl.Series(vectors.present)).then(pl.col(VECTOR)).alias(VECTOR)
            ).write_parquet(new)


class _WrongVectorsError(Exception):
    """A file holds something else than vectors of these items; the message goes after the file's name."""


def _npy_array(path: Path, items: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """As `_table`, of a .npy file."""
    # mapped: a false header takes no memory; pickled objects and archives (.npz) are refused
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        reason = "it is no whole .npy file of numbers"
        raise _WrongVectorsError(f"{reason} ({error_line(error)})") from error
    if array.dtype.kind not in "fiu":
        raise _WrongVectorsError(f"it holds {array.dtype}: expected numbers")
    if array.ndim != 2 or not array.shape[1]:
        raise _WrongVectorsError(f"its shape is {list(array.shape)}: expected a row of numbers for each item")
    if len(array) != len(items):
        raise _WrongVectorsError(
            f"it has {counted(len(array), 'row')}, and the dataset has {counted(len(items), 'item')}: give a "
            "row for each row of dataset.items, or a .parquet file with ids"
        )
    log.info("%s: row 1 is item %s, as in items.parquet of the dataset", path, _shown(items.ids[0]))
    return np.ones(len(items), dtype=bool), array


def _table(path: Path, items: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a Parquet file.

    Returns:
        present: bool (n_items,), True for items that have a vector.
        values: their vectors, numbers (n, d) in the order of items.
    """
    schema = pl.read_parquet_schema(path)
    if ID not in schema or VECTOR not in schema:
        raise _WrongVectorsError(f"expected the columns {ID} and {VECTOR}, found {join_names(schema)}")
    kind = schema[VECTOR]
    if not isinstance(kind, pl.List | pl.Array) or not kind.inner.is_numeric():
        raise _WrongVectorsError(f"its column {VECTOR} holds {shorten(str(kind))}: expected lists of numbers")
    table = pl.read_parquet(path, columns=[ID, VECTOR])
    ids = table[ID].cast(pl.String)
    if ids.null_count() or ids.is_duplicated().any():
        problem = "a row has no item_id"
        if not ids.null_count():
            problem = f"item {_shown(ids.filter(ids.is_duplicated())[0])} has several rows"
        raise _WrongVectorsError(problem)
    numbers = pl.Series(IdMap(ids).find(items.ids.to_list()))
    missing = (numbers < 0).arg_true()
    if len(missing) == len(items) and len(ids):
        raise _WrongVectorsError(
            f"none of its ids is in the dataset: it has {_shown(ids[0])}, and the dataset "
            f"{_shown(items.ids[0])}"
        )
    if len(missing):
        raise _WrongVectorsError(
            f"item {_shown(items.ids[missing[0]])} has no row ({len(missing):,} of "
            f"{counted(len(items), 'item')} missing): a row with a null {VECTOR} says that it has none"
        )
    column = table[VECTOR].gather(numbers)
    present = column.is_not_null()
    return present.to_numpy(), _matrix(column.drop_nulls(), items.ids.filter(present))


def _matrix(column: pl.Series, ids: pl.Series) -> np.ndarray:
    """Lists of numbers as an array (n, d).

    Args:
        column: without nulls (n,).
        ids: of the items (n,).

    Raises:
        _WrongVectorsError: they are empty or of several lengths.
    """
    lists = column.cast(pl.List(pl.Float64))
    lengths = lists.list.len()
    if not len(lists) or not lengths[0]:
        raise _WrongVectorsError("it holds no numbers")
    width = int(lengths[0])
    others = (lengths != width).arg_true()
    if len(others):
        odd = others[0]
        raise _WrongVectorsError(
            f"the vector of item {_shown(ids[odd])} has {counted(int(lengths[odd]), 'number')}, and that of "
            f"item {_shown(ids[0])} has {width:,}"
        )
    return lists.explode().to_numpy().reshape(-1, width)  # a null becomes NaN, which is refused


def _shown(item_id: object) -> str:
    """An item id in an error."""
    return shorten(escaped(repr(item_id)))
