"""JSON files: a record on each line, one array of records, or one object keyed by id."""

import ast
import io
import json
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO, cast

import polars as pl

from cllm4rec.data.readers.advice import first_lines, sequences_advice
from cllm4rec.data.readers.columns import join_texts
from cllm4rec.data.readers.decompression import encoding_of_mark, nonblank_lines, open_unpacked, to_utf8
from cllm4rec.data.readers.json_objects import keyed_records
from cllm4rec.data.readers.raw import RawTable, concatenate, row_number, to_series
from cllm4rec.data.readers.source import SourceFile, WantedColumns
from cllm4rec.messages import error_line, shorten

RECORDS_AT_ONCE = 50_000
MAX_SPARSE_CELLS = 50_000_000  # of `RECORDS_AT_ONCE`, if fewer than a twentieth are filled
Record = dict[str, Any]
Line = tuple[int, str]  # the number of a line that is not blank; its text


def read_json(file: SourceFile) -> RawTable:
    """Read the wanted columns of the records. Values keep their types.

    A line may also be a dict as Python writes it, as in the Amazon metadata of 2014.

    Raises:
        ValueError: a line is not a record; the message names it.
    """
    advice = sequences_advice(first_lines(file.beginning), file.name, file.options.content)
    if advice is not None:
        raise ValueError(f"{file.path}: it holds no JSON: name it .txt, and give {advice}")
    with _open_utf8(file) as content:
        return _read_records(file, content)


def _open_utf8(file: SourceFile) -> BinaryIO:
    """The content of a file, decompressed and as UTF-8."""
    content = cast(io.BufferedReader, open_unpacked(file.path, file.allowance))
    if file.options.encoding is None and encoding_of_mark(content.peek(4)) is None:
        return content
    with content:
        return io.BytesIO(to_utf8(content.read(), file.name, file.options.encoding))


def _read_records(file: SourceFile, content: BinaryIO) -> RawTable:
    """Tell the layout of a file by its first two lines, and read it."""
    name, wanted_columns = file.name, file.wanted_columns
    lines = _texts(content, name)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{name}: cannot be read as JSON: the file is empty")
    if first[1].startswith("["):
        records = _array(_whole_text([first], lines), name)
        frame, columns = _table(name, records, wanted_columns)
        return RawTable(frame, name, columns, row_number)
    second = list(islice(lines, 1))
    if first[1].startswith("{") and (not second or _is_incomplete(first[1])):
        pairs = _object(_whole_text([first, *second], lines), name)
        if pairs is not None:
            keyed = keyed_records(pairs, name, wanted_columns, file.id_columns)
            frame, columns = _table(name, iter([dict(pairs)] if keyed is None else keyed), wanted_columns)
            if keyed is None:
                return RawTable(frame, name, columns, lambda _: f"line {first[0]}")
            return RawTable(frame, name, columns, lambda row: f"key {shorten(repr(pairs[row][0]))}")
    line_numbers = _LineNumbers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of unknown escapes in dicts
        records = _records(chain([first], second, lines), name, line_numbers)
        frame, columns = _table(name, records, wanted_columns)
    return RawTable(frame, name, columns, line_numbers.locate)


class _LineNumbers:
    """Line number of each row of a table. The difference of both grows at blank lines only."""

    def __init__(self) -> None:
        self.rows, self.differences = [0], [1]  # from a row on: line number - row

    def add(self, row: int, line: int) -> None:
        """Note the line of the next row."""
        if line - row != self.differences[-1]:
            self.rows.append(row)
            self.differences.append(line - row)

    def locate(self, row: int) -> str:
        return f"line {row + self.differences[bisect_right(self.rows, row) - 1]}"


def _texts(content: BinaryIO, name: str) -> Iterator[Line]:
    """The lines that are not blank."""
    for number, line in nonblank_lines(content, name):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
        except UnicodeDecodeError as error:
            way_out = "save the file as UTF-8, or give `encoding`"
            raise ValueError(f"{name}, line {number}: not UTF-8 text: {way_out}") from error
        if text:
            yield number, text


def _whole_text(first_lines: Sequence[Line], lines: Iterator[Line]) -> str:
    """The text of all lines; blank lines are empty, so that line numbers stay right."""
    pieces, last_number = [], 0
    for number, text in chain(first_lines, lines):
        pieces.append("\n" * (number - last_number) + text)
        last_number = number
    return "".join(pieces)[1:]  # without the line end before line 1


def _is_incomplete(text: str) -> bool:
    """Whether a line is the beginning of a JSON value that continues on the next line."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) - 1
    except (ValueError, RecursionError):
        pass
    return False


def _object(text: str, name: str) -> list[tuple[str, Any]] | None:
    """The keys and values of one JSON object; None if the text is one line, which may be a Python dict."""
    last_pairs: list[tuple[str, Any]] = []

    def note_pairs(pairs: list[tuple[str, Any]]) -> Record:
        nonlocal last_pairs
        last_pairs = pairs  # the outermost object is parsed last
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=note_pairs)
    except (ValueError, RecursionError) as error:
        if "\n" not in text.strip():
            return None
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{name}{line}: cannot be read as JSON: {error_line(error)}") from error
    return last_pairs if isinstance(value, dict) else None


def _array(text: str, name: str) -> Iterator[Record]:
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: cannot be read as one JSON array: {error_line(error)}") from error
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{name}, {row_number(row)}: {shorten(repr(record))}: expected a JSON object")
        yield record


def _records(lines: Iterator[Line], name: str, line_numbers: _LineNumbers) -> Iterator[Record]:
    """The record of each line; notes the lines of the rows."""
    for row, (number, text) in enumerate(lines):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            record = _python_dict(text)
            if record is None:
                reason = f"cannot be read as JSON: {error_line(error)}"
                raise ValueError(f"{name}, line {number}: {reason}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{name}, line {number}: {shorten(repr(record))}: expected a JSON object")
        line_numbers.add(row, number)
        yield record


def _python_dict(text: str) -> Record | None:
    """A dict as Python writes it; None if the text is something else."""
    try:
        record = ast.literal_eval(text) if text.startswith("{") else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return {str(key): value for key, value in record.items()} if isinstance(record, dict) else None


def _table(
    name: str, records: Iterator[Record], wanted_columns: WantedColumns | None
) -> tuple[pl.DataFrame, list[str]]:
    """The wanted columns of the records, and the names of all columns."""
    names: dict[str, None] = {}  # an ordered set
    lengths: list[int] = []
    chunks: list[dict[str, pl.Series]] = []
    while batch := list(islice(records, RECORDS_AT_ONCE)):
        keys = set().union(*batch)
        names |= dict.fromkeys(batch[0]) | dict.fromkeys(sorted(keys - batch[0].keys()))
        lengths.append(len(batch))
        kept: WantedColumns = dict.fromkeys(keys)
        if wanted_columns is not None:
            kept = {key: wanted_columns[key] for key in keys & wanted_columns.keys()}
        n_cells = len(kept) * len(batch)
        if n_cells > MAX_SPARSE_CELLS and n_cells > 20 * sum(map(len, batch)):
            reason = f"its records have {len(kept):,} different keys, most of them in few: it is no table"
            raise ValueError(f"{name}: {reason}")
        chunks.append(
            {key: _column([record.get(key) for record in batch], joiner) for key, joiner in kept.items()}
        )
    columns = {}
    for key in names:
        if any(key in chunk for chunk in chunks):
            pieces = zip(chunks, lengths, strict=True)
            columns[key] = concatenate(
                [chunk.get(key, pl.Series([None] * n_rows, dtype=pl.Null)) for chunk, n_rows in pieces]
            )
    return pl.DataFrame(columns), list(names)


def _column(values: list[Any], joiner: str | None) -> pl.Series:
    if joiner is not None:
        values = [join_texts(value, joiner) if isinstance(value, list) else value for value in values]
    return to_series(values)
