"""A JSON object keyed by id: its values are the records of a table, or the items of each user in order."""

from collections.abc import Sequence
from typing import Any

from cllm4rec.data.readers.source import WantedColumns
from cllm4rec.messages import shorten

Record = dict[str, Any]


def keyed_records(
    pairs: Sequence[tuple[str, Any]],
    name: str,
    wanted_columns: WantedColumns | None,
    id_columns: Sequence[str],
) -> list[Record] | None:
    """A record for each key of an object, with the key as its id; None if the object is itself a record.

    Args:
        pairs: the keys and values of the object.
        name: the file's name, for errors.
        wanted_columns: the columns that may be needed.
        id_columns: names of the id column; a key gets the first one.

    Raises:
        ValueError: the values are of several types, the keys are columns, or a key occurs twice.
    """
    types = {type(value) for _, value in pairs}
    if not id_columns or not types & {dict, list}:
        return None
    n_columns = sum(wanted_columns is not None and key in wanted_columns for key, _ in pairs)
    if n_columns > 1 or any(key in id_columns for key, _ in pairs):
        if len(types) > 1:
            return None
        way_out = "write it with orient='records' and lines=True"
        raise ValueError(f"{name}: a JSON object of columns, pandas' default in to_json: {way_out}")
    _check_alike(pairs, name)
    if types == {list}:
        return _sequences(pairs, name, wanted_columns, id_columns)
    ids = [next((value[column] for column in id_columns if column in value), None) for _, value in pairs]
    if all(record_id is None for record_id in ids):
        return [{id_columns[0]: key, **value} for key, value in pairs]
    for number, ((key, _), record_id) in enumerate(zip(pairs, ids, strict=True)):
        if key not in (str(record_id), str(number)):  # pandas writes row numbers as keys
            location = f"{name}, key {_shown(key)}"
            raise ValueError(
                f"{location}: its record has another id, {_shown(record_id)}: leave one of them out"
            )
    return [value for _, value in pairs]


def _check_alike(pairs: Sequence[tuple[str, Any]], name: str) -> None:
    """Raise ValueError unless the keys are distinct, and the values all records or all lists."""
    first_key, first_value = pairs[0]
    if not isinstance(first_value, dict | list):
        raise ValueError(
            f"{name}, key {_shown(first_key)}: {_shown(first_value)}: expected a record or a list"
        )
    expected = "a record" if isinstance(first_value, dict) else "a list"
    keys: set[str] = set()
    for key, value in pairs:
        if type(value) is not type(first_value):
            reason = f"expected {expected}, as under key {_shown(first_key)}"
            raise ValueError(f"{name}, key {_shown(key)}: {_shown(value)}: {reason}")
        if key in keys:
            raise ValueError(f"{name}: key {_shown(key)} occurs twice: keep one value for each id")
        keys.add(key)


def _sequences(
    pairs: Sequence[tuple[str, Any]],
    name: str,
    wanted_columns: WantedColumns | None,
    id_columns: Sequence[str],
) -> list[Record]:
    """A record of each user and the items in order, if the table may hold sequences."""
    if wanted_columns is None or "item_ids" not in wanted_columns:
        raise ValueError(f"{name}, key {_shown(pairs[0][0])}: {_shown(pairs[0][1])}: expected a record")
    for key, items in pairs:
        if any(isinstance(item, dict | list) for item in items):
            raise ValueError(f"{name}, key {_shown(key)}: {_shown(items)}: expected a list of item ids")
    return [{id_columns[0]: key, "item_ids": items} for key, items in pairs]


def _shown(value: Any) -> str:
    """A value for an error."""
    try:
        return shorten(repr(value))
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
