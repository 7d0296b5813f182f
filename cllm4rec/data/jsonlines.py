"""JSON files: a record a line, or one array of records."""

import ast
import json
import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO

import polars as pl

from cllm4rec.data.missing import is_missing, number_text
from cllm4rec.data.raw import Raw, first_line, joined, row_number, series_of, short

RECORDS_AT_ONCE = 50_000
Record = dict[str, Any]


def read_json(file: BinaryIO, name: str, wanted: Mapping[str, str | None] | None) -> Raw:
    """Records of a file, one a line, or of one JSON array.

    A line may also be a dict as Python writes it, as the Amazon metadata of 2014 are.

    Args:
        file: the bytes, decompressed.
        name: the file's name, for errors.
        wanted: the keys to keep -> what to put between the texts of a list (None: leave lists as they are); all if None.

    Raises:
        ValueError: a line is not a record; the message names it.
    """
    first = next((line for line in _Lines(file) if line.strip(b"\xef\xbb\xbf \t\r\n")), None)
    if first is None:
        raise ValueError(f"{name}: cannot be read as JSON: the file is empty")
    file.seek(0)
    if first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        frame, keys = _table(_array(file.read(), name), wanted)
        return Raw(frame, name, keys, row_number)
    blank: list[int] = []  # the number of records above each blank line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in Python's dicts
        frame, keys = _table(_records(file, name, blank), wanted)
    return Raw(frame, name, keys, lambda row: f"line {row + 1 + bisect_right(blank, row)}")


class _Lines:
    """The lines of a file, longer pieces of one line given in parts: enough to see how a file begins."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.readline(2**16), b"")


def _array(data: bytes, name: str) -> Iterator[Record]:
    try:
        records = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: cannot be read as one JSON array: {first_line(error)}") from error
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{name}, {row_number(row)}: {short(repr(record))}: a JSON object is needed")
        yield record


def _records(file: Iterable[bytes], name: str, blank: list[int]) -> Iterator[Record]:
    """The record of each line; blank lines are left out, and noted."""
    row = 0
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 text: save the file as UTF-8") from error
        if not text:
            blank.append(row)
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            record = _python_dict(text)
            if record is None:
                raise ValueError(f"{name}, line {number}: cannot be read as JSON: {first_line(error)}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{name}, line {number}: {short(repr(record))}: a JSON object is needed")
        row += 1
        yield record


def _python_dict(text: str) -> Record | None:
    try:
        record = ast.literal_eval(text) if text.startswith("{") else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return {str(key): value for key, value in record.items()} if isinstance(record, dict) else None


def _table(records: Iterator[Record], wanted: Mapping[str, str | None] | None) -> tuple[pl.DataFrame, list[str]]:
    """The wanted columns of the records, and the names of all."""
    names: dict[str, None] = {}
    lengths: list[int] = []
    parts: list[dict[str, pl.Series]] = []
    while chunk := list(islice(records, RECORDS_AT_ONCE)):
        keys = set().union(*chunk)
        names |= dict.fromkeys(chunk[0]) | dict.fromkeys(sorted(keys - chunk[0].keys()))
        lengths.append(len(chunk))
        kept = dict.fromkeys(keys) if wanted is None else {key: wanted[key] for key in keys & wanted.keys()}
        parts.append({key: _column([record.get(key) for record in chunk], between) for key, between in kept.items()})
    held = [name for name in names if any(name in part for part in parts)]
    columns = {}
    for name in held:
        pieces = zip(parts, lengths, strict=True)
        columns[name] = joined([part.get(name, pl.Series([None] * n, dtype=pl.Null)) for part, n in pieces])
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
