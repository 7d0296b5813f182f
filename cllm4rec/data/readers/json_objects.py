"""One JSON object keyed by id: its values are the records of a table, or the items of each user in order."""

from collections.abc import Mapping, Sequence
from typing import Any

from cllm4rec.messages import shorten

Record = dict[str, Any]


def keyed_records(
    pairs: Sequence[tuple[str, Any]],
    name: str,
    wanted: Mapping[str, str | None] | None,
    id_names: Sequence[str],
) -> list[Record] | None:
    """A record for each key of an object, with the key as its id; None if the object is a record itself.

    Args:
        pairs: the keys and values of the object.
        name: the file's name, for errors.
        wanted: the columns that may be taken.
        id_names: names of the column of ids; the key is called by the first.

    Raises:
        ValueError: the values are of several kinds, the keys name columns, or a key is there twice.
    """
    kinds = {type(value) for _, value in pairs}
    if not id_names or not kinds & {dict, list}:
        return None
    n_columns = sum(wanted is not None and key in wanted for key, _ in pairs)
    if n_columns > 1 or any(key in id_names for key, _ in pairs):
        if len(kinds) > 1:
            return None
        way = "write it with orient='records' and lines=True"
        raise ValueError(f"{name}: a JSON object of columns, as pandas' to_json writes it by default: {way}")
    _check_alike(pairs, name)
    if kinds == {list}:
        return _sequences(pairs, name, wanted, id_names)
    own = [next((value[column] for column in id_names if column in value), None) for _, value in pairs]
    if all(value is None for value in own):
        return [{id_names[0]: key, **value} for key, value in pairs]
    for number, ((key, _), value) in enumerate(zip(pairs, own, strict=True)):
        if key not in (str(value), str(number)):  # or the number of the row, as pandas writes it
            raise ValueError(
                f"{name}, key {_shown(key)}: its record has another id, {_shown(value)}: leave one of them out"
            )
    return [value for _, value in pairs]


def _check_alike(pairs: Sequence[tuple[str, Any]], name: str) -> None:
    """Raise ValueError unless each key is there once, and all values are records or all lists."""
    first_key, first = pairs[0]
    if not isinstance(first, dict | list):
        raise ValueError(f"{name}, key {_shown(first_key)}: {_shown(first)}: a record or a list is needed")
    seen: set[str] = set()
    for key, value in pairs:
        if type(value) is not type(first):
            need = f"a {'record' if isinstance(first, dict) else 'list'} is needed, as under key {_shown(first_key)}"
            raise ValueError(f"{name}, key {_shown(key)}: {_shown(value)}: {need}")
        if key in seen:
            raise ValueError(f"{name}: key {_shown(key)} is there twice: an id may have one value")
        seen.add(key)


def _sequences(
    pairs: Sequence[tuple[str, Any]],
    name: str,
    wanted: Mapping[str, str | None] | None,
    id_names: Sequence[str],
) -> list[Record]:
    if wanted is None or "item_ids" not in wanted:
        raise ValueError(f"{name}, key {_shown(pairs[0][0])}: {_shown(pairs[0][1])}: a record is needed")
    for key, items in pairs:
        if any(isinstance(item, dict | list) for item in items):
            raise ValueError(f"{name}, key {_shown(key)}: {_shown(items)}: a list of item ids is needed")
    return [{id_names[0]: key, "item_ids": items} for key, items in pairs]


def _shown(value: Any) -> str:
    """A value for an error."""
    try:
        return shorten(repr(value))
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
