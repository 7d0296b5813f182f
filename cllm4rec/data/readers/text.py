"""Text tables: lines of cells with a separator between, in each row as many cells as in the header."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from itertools import islice

import polars as pl

from cllm4rec.data.readers.advice import NO_HEADER, first_lines, likely_way, sequence_way
from cllm4rec.data.readers.quoting import (
    escaped_quotes,
    has_quoted_column,
    separators_outside,
    unquoted,
    unquoted_cell,
)
from cllm4rec.data.readers.raw import RawTable, joined
from cllm4rec.messages import error_line, printable

USUAL_SEPARATORS = ("::", ";", "\t", ",", "|")
Record = tuple[int, list[str]]  # the line (from 1) on which a record begins, its cells
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_STATED = re.compile(rb'(?:\xef\xbb\xbf)?"?sep=([^\r\n"])"?\r?\n', re.IGNORECASE)
_DATUM = re.compile(r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?|\d{4}-\d\d-\d\d.*")  # a number or a date
_LINE = re.compile(rb"[^\n]+")
ESCAPED = "there are quotes after backslashes in a quoted cell: give --escape '\\', or double such quotes"
BEGINNING = 2**16  # bytes that are looked at for advice


class TextTable:
    """Lines of cells with a separator between.

    Polars reads the table; whether each row has as many cells as the header is told from the number of separators outside
    quotes. Only where that number is wrong, or the quotes are unusual, are the records walked through one by one.

    Args:
        data: the file's bytes, UTF-8. A first line `sep=;` is left out.
        name: the file's name, for errors.
        separator: one character of ASCII.
        quoted: cells may be in double quotes, and then hold separators, line ends and doubled quotes. Otherwise
            a quote is a character like any other, except in a column whose cells are all in quotes.
        header: names of the columns of a file that has no header.
        numbered: the file has no header, and its columns are called 1, 2, ...
        escape: a character after which the next has no special meaning; cells may be quoted then.
        holds: which table it is, for advice in errors (a key of `advice.NO_HEADER`).
    """

    def __init__(
        self,
        data: bytes,
        name: str,
        separator: str,
        quoted: bool,
        header: list[str] | None = None,
        *,
        numbered: bool = False,
        escape: str | None = None,
        holds: str = "the events",
    ) -> None:
        check_character(separator, "--separator")
        if escape is not None:
            check_character(escape, "--escape")
            if escape == separator:
                raise ValueError(f"--escape {escape!r}: the cells of {name} are separated by it")
        stated = _STATED.match(data)
        data = data.removeprefix(b"\xef\xbb\xbf") if stated is None else data[stated.end() :]
        ended = data.endswith(b"\n") and data[-2:-1] not in (b"", b"\r", b"\n")
        self.data = data if ended else data.rstrip(b"\r\n") + b"\n"
        self.n_skipped = int(stated is not None)  # lines above the data
        self.name, self.separator, self.quoted, self.escape = (
            name,
            separator,
            quoted or escape is not None,
            escape,
        )
        self.given, self.numbered, self.holds = header is not None, numbered, holds
        self.has_header = header is None and not numbered
        self.header = header or self._header()

    def raw(self, wanted: Collection[str] | None = None) -> RawTable:
        """The table; of a column that is not wanted, quotes around all cells may stay."""
        frame = self._fast() if len(self.header) > 1 else None
        quotes = not self.quoted and not self.given and b'"' in self.data
        if frame is None and quotes and has_quoted_column(self.data, self.separator, self.has_header):
            self.quoted = True
            self.header = self._header()
            return self.raw(wanted)
        if frame is None:
            frame = self._walked()
        raw = RawTable(
            unquoted(frame, wanted) if quotes else frame, self.name, self.header, self._where, self._way()
        )
        if quotes and self.escape is None and b'\\"' in self.data:
            for column in raw.frame.columns:
                if wanted is None or column in wanted:
                    raw.refuse(column, escaped_quotes(raw.frame[column]), ESCAPED)
        return raw

    def _header(self) -> list[str]:
        try:
            first = next(self.records(), None)
        except ValueError as error:
            raise ValueError(self._other_separator() or str(error)) from error
        if first is None:
            raise ValueError(f"{self.name}: cannot be read as a table: the file is empty")
        header = first[1]
        other = self._other_separator() if len(header) == 1 else None
        if other is not None:
            raise ValueError(other)
        if self.numbered:
            return [str(number) for number in range(1, len(header) + 1)]
        return distinct(
            header if self.quoted else [unquoted_cell(name) for name in header], self.name, self._way()
        )

    def _other_separator(self) -> str | None:
        """An error that names the separator of the header, if it is another; quoted cells may hold it too."""
        line = next((found.group() for found in _LINE.finditer(self.data) if found.group() != b"\r"), b"")
        bare = _QUOTED.sub("", line.decode(errors="replace"))
        other = next((one for one in USUAL_SEPARATORS if one in bare and one != self.separator), None)
        if other is None or self.separator in bare:
            return None
        way = "name it as MovieLens does (ratings.dat)" if len(other) > 1 else f"give --separator {other!r}"
        expected = f"with {self.separator!r} between the cells, the header is one cell that holds {other!r}"
        return f"{self.name}: {expected}: if that parts the columns, {way}{self._sequence_way()}"

    def _fast(self) -> pl.DataFrame | None:
        """The table as Polars reads it, or None if it is not certain that it is what the file says."""
        if self.escape is not None and self.escape.encode() in self.data:
            return None
        separators = separators_outside(self.data, self.separator, self.quoted)
        if separators is None:
            return None
        names = {"has_header": True} if self.has_header else {"has_header": False, "new_columns": self.header}
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
        if frame.columns != self.header:
            if self.quoted or [unquoted_cell(name) for name in frame.columns] != self.header:
                return None
            frame.columns = self.header
        whole = separators == (len(frame) + self.has_header) * (
            len(self.header) - 1
        )  # Polars takes no row that is too long
        return frame if whole else None

    def _walked(self) -> pl.DataFrame:
        """The table, record by record, each checked to have as many cells as the header."""
        parts, n = [], len(self.header)
        records = self._rows()
        while chunk := list(islice(records, 100_000)):
            for line, cells in chunk:
                if len(cells) != n:
                    first = "this kind of file has" if self.given else "the first row has"
                    count = f"{len(cells)} cells where {'the header has' if self.has_header else first} {n}"
                    raise ValueError(f"{self.name}, line {line}: {count}{self._escape_way() or self._way()}")
            columns = zip(*(cells for _, cells in chunk), strict=True)
            parts.append(
                [pl.Series([cell or None for cell in column], dtype=pl.String) for column in columns]
            )
        whole = (
            [joined(column) for column in zip(*parts, strict=True)]
            if parts
            else [pl.Series(dtype=pl.String)] * n
        )
        return pl.DataFrame([column.alias(name) for name, column in zip(self.header, whole, strict=True)])

    def _rows(self) -> Iterator[Record]:
        """The records below the header."""
        return islice(self.records(), int(self.has_header), None)

    def _where(self, row: int) -> str:
        return f"line {next(islice(self._rows(), row, None))[0]}"

    def _way(self) -> str:
        """How else the file may be read, for the end of an error; "" unless the first row looks like data."""
        if not self.has_header:
            return ""
        try:
            header, *below = [cells for _, cells in islice(self.records(), 100)]
        except ValueError:  # a quote that is not closed
            return ""
        pairs = (pair for cells in below for pair in zip(header, cells, strict=False))
        way = likely_way(self.data[:BEGINNING], self.name, self.holds) if len(header) == 1 else None
        if way is not None:
            return f"; {way}"
        if any(map(_DATUM.fullmatch, header)) or any(name == cell != "" for name, cell in pairs):
            return f"; the first row looks like data: {NO_HEADER[self.holds]}{self._sequence_way()}"
        return ""

    def _sequence_way(self) -> str:
        """Follows other advice if each line may be a user and the items in order."""
        way = sequence_way(first_lines(self.data[:BEGINNING]), self.name, self.holds)
        return "" if way is None else f", or give {way}"

    def _escape_way(self) -> str:
        cells = self.quoted or any(edge + b'"' in self.data for edge in (b"\n", self.separator.encode()))
        escaped = cells and self.escape is None and b'\\"' in self.data
        return (
            "; there are quotes after backslashes: if those are characters of the text, give --escape '\\'"
            if escaped
            else ""
        )

    def records(self) -> Iterator[Record]:
        """All records; lines without a character are left out."""
        try:
            yield from self._quoted_records() if self.quoted else self._plain_records()
        except UnicodeDecodeError as error:
            ways = "save the file as UTF-8, or give its --encoding (latin-1, cp1252, ...)"
            raise ValueError(f"{self.name}, line {self._bad_line()}: not UTF-8 text: {ways}") from error

    def _bad_line(self) -> int:
        """The first line that is not UTF-8."""
        try:
            self.data.decode()
        except UnicodeDecodeError as error:
            return self.data.count(b"\n", 0, error.start) + 1 + self.n_skipped
        raise AssertionError("the text is UTF-8")

    def _plain_records(self) -> Iterator[Record]:
        line, end = 1 + self.n_skipped, 0
        for found in _LINE.finditer(self.data):
            line += self.data.count(b"\n", end, found.start())
            end = found.start()
            if text := found.group().decode().removesuffix("\r"):
                yield line, text.split(self.separator)

    def _quoted_records(self) -> Iterator[Record]:
        limit = csv.field_size_limit(2**31 - 1)
        text = io.TextIOWrapper(io.BytesIO(self.data), "utf-8", newline="")
        reader = csv.reader(text, delimiter=self.separator, escapechar=self.escape, strict=True)
        begin = 1
        try:
            for cells in reader:
                if cells:
                    yield begin + self.n_skipped, cells
                begin = reader.line_num + 1
        except csv.Error as error:
            place = f"{self.name}, line {begin + self.n_skipped}: {error_line(error)}"
            ways = "close each quote, and double those inside of a quoted cell"
            raise ValueError(f"{place}: {ways}{self._escape_way()}") from error
        finally:
            csv.field_size_limit(limit)


def check_character(character: str, flag: str) -> None:
    """Raise ValueError unless it is one character of ASCII that has no other meaning in a table."""
    if len(character) != 1 or not character.isascii() or character in '\r\n"':
        raise ValueError(f"{flag} {character!r}: one character is needed")


def stated_separator(data: bytes) -> str | None:
    """What a first line `sep=;` says, as Excel reads and writes it."""
    stated = _STATED.match(data)
    return None if stated is None else stated[1].decode("latin-1")


def distinct(names: list[str], file: str, way: str = "") -> list[str]:
    """The names of columns; where several have none, they are called by their numbers.

    Raises:
        ValueError: two columns have one name.
    """
    if names.count("") > 1:
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{file}: the header names column {printable(name)} twice: rename one{way}")
        seen.add(name)
    return names
