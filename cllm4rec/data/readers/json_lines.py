"""JSON files: a record a line, one array of records, or one object keyed by id."""

import ast
import json
import math
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

import polars as pl

from cllm4rec.data.readers.decompression import lines_of
from cllm4rec.data.readers.json_objects import keyed_records
from cllm4rec.data.readers.missing import is_missing, number_text
from cllm4rec.data.readers.raw import RawTable, joined, row_number, series_of
from cllm4rec.messages import error_line, shorten

RECORDS_AT_ONCE = 50_000
MOST_CELLS = 50_000_000  # of records at once, if most are empty
Record = dict[str, Any]
Line = tuple[int, str]  # the number of a line that is not blank, its text


def read_json(
    file: BinaryIO, name: str, wanted: Mapping[str, str | None] | None, id_names: Sequence[str] = ()
) -> RawTable:
    """Records of a file: one a line, of one JSON array, or of one JSON object whose keys are the ids.

    A line may also be a dict as Python writes it, as the Amazon metadata of 2014 are.

    Args:
        file: the bytes, decompressed.
        name: the file's name, for errors.
        wanted: the keys to keep -> what to put between the texts of a list (None: leave lists as they are); all if None.
        id_names: names of the column that the keys of one object are; none if there may be no such object.

    Raises:
        ValueError: a line is not a record; the message names it.
    """
    lines = _texts(file, name)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{name}: cannot be read as JSON: the file is empty")
    if first[1].startswith("["):
        frame, keys = _table(name, _array(_together([first], lines), name), wanted)
        return RawTable(frame, name, keys, row_number)
    second = list(islice(lines, 1))
    if first[1].startswith("{") and (not second or _is_cut(first[1])):
        pairs = _object(_together([first, *second], lines), name)
        if pairs is not None:
            records = keyed_records(pairs, name, wanted, id_names)
            frame, keys = _table(name, iter([dict(pairs)] if records is None else records), wanted)
            place = (
                (lambda _: f"line {first[0]}")
                if records is None
                else (lambda row: f"key {shorten(repr(pairs[row][0]))}")
            )
            return RawTable(frame, name, keys, place)
    places = _Places()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in Python's dicts
        frame, keys = _table(name, _records(chain([first], second, lines), name, places), wanted)
    return RawTable(frame, name, keys, places.of)


class _Places:
    """Lines of the rows of a table, where some lines are blank."""

    def __init__(self) -> None:
        self.rows, self.above = [0], [1]  # from this row on, the line's number is that much larger

    def note(self, row: int, above: int) -> None:
        self.rows.append(row)
        self.above.append(above)

    def of(self, row: int) -> str:
        return f"line {row + self.above[bisect_right(self.rows, row) - 1]}"


def _texts(file: BinaryIO, name: str) -> Iterator[Line]:
    """The lines that are not blank."""
    for number, line in lines_of(file, name):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}, line {number}: not UTF-8 text: save the file as UTF-8, or give --encoding"
            ) from error
        if text:
            yield number, text


def _together(begun: Sequence[Line], lines: Iterator[Line]) -> str:
    """The whole text again, each line at its number."""
    parts, above = [], 0
    for number, text in chain(begun, lines):
        parts.append("\n" * (number - above) + text)
        above = number
    return "".join(parts)[1:]  # the first line has none above


def _is_cut(text: str) -> bool:
    """Whether a line is the beginning of a JSON value that goes on below."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) - 1
    except (ValueError, RecursionError):
        pass
    return False


def _object(text: str, name: str) -> list[tuple[str, Any]] | None:
    """The keys and values of one JSON object; None if a line of Python's may be what it is."""
    last: list[tuple[str, Any]] = []

    def noted(pairs: list[tuple[str, Any]]) -> Record:
        nonlocal last
        last = pairs  # at the end those of the outermost object
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=noted)
    except (ValueError, RecursionError) as error:
        if "\n" not in text.strip():
            return None
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{name}{line}: cannot be read as JSON: {error_line(error)}") from error
    return last if isinstance(value, dict) else None


def _array(text: str, name: str) -> Iterator[Record]:
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: cannot be read as one JSON array: {error_line(error)}") from error
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{name}, {row_number(row)}: {shorten(repr(record))}: a JSON object is needed")
        yield record


def _records(lines: Iterator[Line], name: str, places: _Places) -> Iterator[Record]:
    """The record of each line."""
    for row, (number, text) in enumerate(lines):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            record = _python_dict(text)
            if record is None:
                raise ValueError(
                    f"{name}, line {number}: cannot be read as JSON: {error_line(error)}"
                ) from error
        if not isinstance(record, dict):
            raise ValueError(f"{name}, line {number}: {shorten(repr(record))}: a JSON object is needed")
        if number - row != places.above[-1]:
            places.note(row, number - row)
        yield record


def _python_dict(text: str) -> Record | None:
    try:
        record = ast.literal_eval(text) if text.startswith("{") else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return {str(key): value for key, value in record.items()} if isinstance(record, dict) else None


def _table(
    name: str, records: Iterator[Record], wanted: Mapping[str, str | None] | None
) -> tuple[pl.DataFrame, list[str]]:
    """The wanted columns of the records, and the names of all."""
    names: dict[str, None] = {}
    lengths: list[int] = []
    parts: list[dict[str, pl.Series]] = []
    while chunk := list(islice(records, RECORDS_AT_ONCE)):
        keys = set().union(*chunk)
        names |= dict.fromkeys(chunk[0]) | dict.fromkeys(sorted(keys - chunk[0].keys()))
        lengths.append(len(chunk))
        kept = dict.fromkeys(keys) if wanted is None else {key: wanted[key] for key in keys & wanted.keys()}
        if len(kept) * len(chunk) > MOST_CELLS and len(kept) * len(chunk) > 20 * sum(map(len, chunk)):
            raise ValueError(
                f"{name}: its records have {len(kept):,} different keys, most of them in few: it is no table"
            )
        parts.append(
            {key: _column([record.get(key) for record in chunk], between) for key, between in kept.items()}
        )
    held = [key for key in names if any(key in part for part in parts)]
    columns = {}
    for key in held:
        pieces = zip(parts, lengths, strict=True)
        columns[key] = joined([part.get(key, pl.Series([None] * n, dtype=pl.Null)) for part, n in pieces])
    return pl.DataFrame(columns), list(names)


def _column(values: list[Any], between: str | None) -> pl.Series:
    if between is not None:
        values = [flat(value, between) if isinstance(value, list) else value for value in values]
    return series_of(values)


def flat(value: Any, between: str) -> Any:
    """The texts of a list, and of the lists in it, as one; a list that holds anything but texts and numbers stays."""
    left, texts = [value], []
    while left:
        one = left.pop()
        if isinstance(one, list | tuple):
            left.extend(reversed(one))
        elif isinstance(one, str):
            texts.append(one.strip())
        elif is_missing(one):
            continue
        elif isinstance(one, int | float) and not isinstance(one, bool) and abs(one) != math.inf:
            texts.append(number_text(one))
        else:
            return value
    return between.join(text for text in texts if text)
