"""Text tables: cells between separators, with as many cells in each row as in the header."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from itertools import islice

import polars as pl

from cllm4rec.data.readers.advice import (
    NO_HEADER_ADVICE,
    QUOTED_TEXT,
    first_lines,
    format_advice,
    sequences_advice,
)
from cllm4rec.data.readers.decompression import UTF8_MARK
from cllm4rec.data.readers.quoting import (
    count_separators,
    has_escaped_quotes,
    has_quoted_column,
    unquote_cell,
    unquote_columns,
)
from cllm4rec.data.readers.raw import RawTable, concatenate, distinct_names
from cllm4rec.data.readers.source import BEGINNING_BYTES
from cllm4rec.messages import error_line

USUAL_SEPARATORS = ("::", ";", "\t", ",", "|")
RECORDS_AT_ONCE = 100_000
RECORDS_FOR_ADVICE = 100
Record = tuple[int, list[str]]  # the line (from 1) on which the record begins; its cells
_SEPARATOR_LINE = re.compile(rb'(?:\xef\xbb\xbf)?"?sep=([^\r\n"])"?\r?\n', re.IGNORECASE)
_NUMBER_OR_DATE = re.compile(r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?|\d{4}-\d\d-\d\d.*")
_LINE = re.compile(rb"[^\n]+")
ESCAPED_QUOTES = "quotes after backslashes in a quoted cell: give `escape` '\\', or double such quotes"


class TextTable:
    """Lines of cells with a separator between them.

    Polars parses the table. The number of separators outside quotes tells whether each row has as many
    cells as the header. If it has not, or if quotes are unusual, a strict parser walks through the
    records and finds the error.

    Args:
        data: the file's bytes, UTF-8. A first line `sep=;` is skipped.
        name: the file's name, for errors.
        separator: an ASCII character.
        quoted: cells may be in double quotes, and then hold separators, line ends and doubled quotes.
            Otherwise a quote is an ordinary character, except in a column whose cells are all quoted.
        columns: names of the columns of a file that has no header.
        numbered: the file has no header, and its columns are called 1, 2, ...
        escape: a character after which the next one is ordinary. It implies `quoted`.
        content: of the table, a key of `NO_HEADER_ADVICE`.

    Raises:
        ValueError: an argument is wrong, the table is empty or its header is wrong.
    """

    def __init__(
        self,
        data: bytes,
        name: str,
        separator: str,
        quoted: bool,
        columns: list[str] | None = None,
        *,
        numbered: bool = False,
        escape: str | None = None,
        content: str = "the events",
    ) -> None:
        check_character(separator, "separator")
        if escape is not None:
            check_character(escape, "escape")
            if escape == separator:
                raise ValueError(f"`escape` {escape!r}: it separates the cells of {name}: give another")
        separator_line = _SEPARATOR_LINE.match(data)
        data = data.removeprefix(UTF8_MARK) if separator_line is None else data[separator_line.end() :]
        ends_in_newline = data.endswith(b"\n") and data[-2:-1] not in (b"", b"\r", b"\n")
        self.data = data if ends_in_newline else data.rstrip(b"\r\n") + b"\n"
        self.n_skipped_lines = int(separator_line is not None)
        self.name, self.separator, self.escape, self.content = name, separator, escape, content
        self.quoted = quoted or escape is not None
        self.has_fixed_columns, self.numbered = columns is not None, numbered
        self.has_header = columns is None and not numbered
        self.columns = columns or self._read_columns()

    def raw(self, wanted_columns: Collection[str] | None = None) -> RawTable:
        """The table. Columns that are not wanted may keep quotes around all of their cells."""
        frame = self._parse_fast() if len(self.columns) > 1 else None
        may_unquote = not self.quoted and not self.has_fixed_columns and b'"' in self.data
        if frame is None and may_unquote and has_quoted_column(self.data, self.separator, self.has_header):
            self.quoted = True
            self.columns = self._read_columns()
            return self.raw(wanted_columns)
        if frame is None:
            frame = self._parse_strict()
        if may_unquote:
            frame = unquote_columns(frame, wanted_columns)
        raw = RawTable(frame, self.name, self.columns, self._locate, self._header_advice())
        if may_unquote and self.escape is None and b'\\"' in self.data:
            for column in raw.frame.columns:
                if wanted_columns is None or column in wanted_columns:
                    raw.refuse(column, has_escaped_quotes(raw.frame[column]), ESCAPED_QUOTES)
        return raw

    def _read_columns(self) -> list[str]:
        """The names of the columns, by the first record."""
        try:
            record = next(self.records(), None)
        except ValueError as error:
            raise ValueError(self._separator_error() or str(error)) from error
        if record is None:
            raise ValueError(f"{self.name}: cannot be read as a table: the file is empty")
        names = record[1]
        separator_error = self._separator_error() if len(names) == 1 else None
        if separator_error is not None:
            raise ValueError(separator_error)
        if self.numbered:
            return [str(number) for number in range(1, len(names) + 1)]
        names = names if self.quoted else [unquote_cell(name) for name in names]
        return distinct_names(names, self.name, self._header_advice())

    def _separator_error(self) -> str | None:
        """An error that names the separator of the header; None if it holds no other separator."""
        lines = (match.group() for match in _LINE.finditer(self.data))
        line = next((line for line in lines if line != b"\r"), b"")
        unquoted = QUOTED_TEXT.sub("", line.decode(errors="replace"))
        others = (text for text in USUAL_SEPARATORS if text in unquoted and text != self.separator)
        other = next(others, None)
        if other is None or self.separator in unquoted:
            return None
        movielens = "name it as MovieLens does (ratings.dat)"
        way_out = f"give `separator` {other!r}" if len(other) == 1 else movielens
        header = f"with {self.separator!r} between cells, the header is one cell that holds {other!r}"
        advice = f"if that separates the columns, {way_out}{self._sequences_advice()}"
        return f"{self.name}: {header}: {advice}"

    def _parse_fast(self) -> pl.DataFrame | None:
        """The table as Polars parses it; None if it may differ from what `_parse_strict` gives."""
        if self.escape is not None and self.escape.encode() in self.data:
            return None
        n_separators = count_separators(self.data, self.separator, self.quoted)
        if n_separators is None:
            return None
        names = (
            {"has_header": True} if self.has_header else {"has_header": False, "new_columns": self.columns}
        )
        try:
            frame = pl.read_csv(
                self.data,
                infer_schema=False,
                separator=self.separator,
                quote_char='"' if self.quoted else None,
                **names,
            )
        except pl.exceptions.PolarsError:
            return None
        if frame.columns != self.columns:
            if self.quoted or [unquote_cell(name) for name in frame.columns] != self.columns:
                return None
            frame.columns = self.columns
        # Polars refuses rows that are too long, so that the right number of separators leaves no short row.
        n_expected = (len(frame) + self.has_header) * (len(self.columns) - 1)
        return frame if n_separators == n_expected else None

    def _parse_strict(self) -> pl.DataFrame:
        """The table record by record.

        Raises:
            ValueError: a record has more or fewer cells than the header; the message names its line.
        """
        chunks, n_columns = [], len(self.columns)
        records = self._rows()
        while chunk := list(islice(records, RECORDS_AT_ONCE)):
            for line, cells in chunk:
                if len(cells) != n_columns:
                    raise ValueError(f"{self.name}, line {line}: {self._width_error(len(cells))}")
            columns = zip(*(cells for _, cells in chunk), strict=True)
            chunks.append([pl.Series([cell or None for cell in cells], dtype=pl.String) for cells in columns])
        whole = [concatenate(pieces) for pieces in zip(*chunks, strict=True)]
        whole = whole or [pl.Series(dtype=pl.String)] * n_columns
        return pl.DataFrame([column.alias(name) for name, column in zip(self.columns, whole, strict=True)])

    def _width_error(self, n_cells: int) -> str:
        """What is wrong with a record of so many cells."""
        reference = "this kind of file has" if self.has_fixed_columns else "the first row has"
        if self.has_header:
            reference = "the header has"
        advice = self._escape_advice() or self._header_advice()
        return f"{n_cells} cells where {reference} {len(self.columns)}{advice}"

    def _rows(self) -> Iterator[Record]:
        """The records below the header."""
        return islice(self.records(), int(self.has_header), None)

    def _locate(self, row: int) -> str:
        return f"line {next(islice(self._rows(), row, None))[0]}"

    def _header_advice(self) -> str:
        """How to read a file whose header looks like data, for the end of an error; "" for others."""
        if not self.has_header:
            return ""
        try:
            header, *rows = [cells for _, cells in islice(self.records(), RECORDS_FOR_ADVICE)]
        except ValueError:  # a quote that is not closed
            return ""
        advice = None
        if len(header) == 1:
            advice = format_advice(self.data[:BEGINNING_BYTES], self.name, self.content)
        if advice is not None:
            return f"; {advice}"
        pairs = (pair for cells in rows for pair in zip(header, cells, strict=False))
        if any(map(_NUMBER_OR_DATE.fullmatch, header)) or any(name == cell != "" for name, cell in pairs):
            return (
                f"; the first row looks like data: {NO_HEADER_ADVICE[self.content]}{self._sequences_advice()}"
            )
        return ""

    def _sequences_advice(self) -> str:
        """Follows other advice if each line may be a user and the items in order."""
        advice = sequences_advice(first_lines(self.data[:BEGINNING_BYTES]), self.name, self.content)
        return "" if advice is None else f", or give {advice}"

    def _escape_advice(self) -> str:
        """Follows an error about cells if quotes may be escaped by backslashes."""
        quote_begins_cell = any(edge + b'"' in self.data for edge in (b"\n", self.separator.encode()))
        if self.escape is not None or b'\\"' not in self.data or not (self.quoted or quote_begins_cell):
            return ""
        return "; some quotes follow backslashes: if they are characters of the text, give `escape` '\\'"

    def records(self) -> Iterator[Record]:
        """All records; empty lines are skipped.

        Raises:
            ValueError: the text is not UTF-8, or a quote is not closed.
        """
        try:
            yield from self._quoted_records() if self.quoted else self._plain_records()
        except UnicodeDecodeError as error:
            ways = "save the file as UTF-8, or give its `encoding` (latin-1, cp1252, ...)"
            raise ValueError(
                f"{self.name}, line {self._undecodable_line()}: not UTF-8 text: {ways}"
            ) from error

    def _undecodable_line(self) -> int:
        """The first line that is not UTF-8."""
        try:
            self.data.decode()
        except UnicodeDecodeError as error:
            return self.data.count(b"\n", 0, error.start) + 1 + self.n_skipped_lines
        raise AssertionError("the text is UTF-8")

    def _plain_records(self) -> Iterator[Record]:
        line, begin = 1 + self.n_skipped_lines, 0
        for match in _LINE.finditer(self.data):
            line += self.data.count(b"\n", begin, match.start())
            begin = match.start()
            if text := match.group().decode().removesuffix("\r"):
                yield line, text.split(self.separator)

    def _quoted_records(self) -> Iterator[Record]:
        size_limit = csv.field_size_limit(2**31 - 1)
        text = io.TextIOWrapper(io.BytesIO(self.data), "utf-8", newline="")
        reader = csv.reader(text, delimiter=self.separator, escapechar=self.escape, strict=True)
        line = 1
        try:
            for cells in reader:
                if cells:
                    yield line + self.n_skipped_lines, cells
                line = reader.line_num + 1
        except csv.Error as error:
            location = f"{self.name}, line {line + self.n_skipped_lines}"
            ways = "close each quote, and double quotes inside a quoted cell"
            raise ValueError(f"{location}: {error_line(error)}: {ways}{self._escape_advice()}") from error
        finally:
            csv.field_size_limit(size_limit)


def check_character(character: str, argument: str) -> None:
    """Raise ValueError unless it is one ASCII character that has no other meaning in a table."""
    if len(character) != 1 or not character.isascii() or character in '\r\n"':
        raise ValueError(f"`{argument}` {character!r}: expected one ASCII character, no quote or line end")


def stated_separator(data: bytes) -> str | None:
    """The separator named by a first line `sep=;`, which Excel reads and writes."""
    match = _SEPARATOR_LINE.match(data)
    return None if match is None else match[1].decode("latin-1")
