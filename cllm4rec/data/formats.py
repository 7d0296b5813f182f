"""Files -> tables as they stand in them: TSV, CSV, JSON lines, Parquet, RecBole's and MovieLens' files, plain or gzip."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import polars as pl

from cllm4rec.data.jsonlines import read_json
from cllm4rec.data.raw import Raw, first_line, joined, row_number, shown

SEPARATORS = {"tsv": "\t", "csv": ",", "inter": "\t", "item": "\t", "user": "\t"}
USUAL_SEPARATORS = ("::", ";", "\t", ",", "|")
KINDS = ".tsv, .csv, .jsonl, .json, .parquet, .inter, .item or .user (.gz may follow)"
MOVIELENS_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical Mystery "
    "Romance Sci-Fi Thriller War Western"
).split()
_RATINGS = ("user_id", "item_id", "rating", "timestamp")
MOVIELENS = {  # whole name of a file -> separator, columns (the files have no header)
    r"ratings\.dat": ("::", _RATINGS),
    r"movies\.dat": ("::", ("item_id", "title", "categories")),
    r"users\.dat": ("::", ("user_id", "gender", "age", "occupation", "zip_code")),
    r"u\.data|u[1-5ab]\.(base|test)": ("\t", _RATINGS),
    r"u\.item": ("|", ("item_id", "title", "release_date", "video_release_date", "url", *MOVIELENS_GENRES)),
    r"u\.user": ("|", ("user_id", "age", "gender", "occupation", "zip_code")),
}
UNREADABLE = (OSError, EOFError, zlib.error, MemoryError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
Record = tuple[int, list[str]]  # the line (from 1) on which a record begins, its cells


def read_raw(path: str | Path, wanted: Mapping[str, str | None] | None = None, separator: str | None = None) -> Raw:
    """Read a file; its kind follows from its name.

    Text tables keep each cell as text, so that the id 007 stays 007; JSON and Parquet keep their types.

    Args:
        path: the file.
        wanted: the columns to keep of JSON and Parquet -> what to put between the texts of a list (None: leave lists be).
            All columns if not given.
        separator: one character between the cells of a text table, instead of the one that its name says; MovieLens' files keep
            theirs.

    Raises:
        ValueError: there is no such file, it is of another kind, or it cannot be read; the message names file and line.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: a file is needed, and this is a folder")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    name = path.name.lower().removesuffix(".gz")
    kind = name.rsplit(".", 1)[-1]
    known = next((known for pattern, known in MOVIELENS.items() if re.fullmatch(pattern, name)), None)
    if known is None and separator is None and kind not in (*SEPARATORS, "jsonl", "json", "parquet"):
        raise ValueError(f"{path}: unknown kind of file: name it {KINDS}, or give --separator for a table of text")
    try:
        if kind == "parquet":
            return _parquet(path, wanted)
        with _open(path) as file:
            if kind in ("jsonl", "json"):
                return read_json(file, str(path), wanted)
            data = file.read()
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as {kind}: {first_line(error)}") from error
    if not data.strip():
        raise ValueError(f"{path}: cannot be read as {kind}: the file is empty")
    if known is not None:
        return _movielens(data, str(path), known[0], list(known[1]))
    raw = TextTable(data, str(path), separator or SEPARATORS[kind], quoted=kind == "csv").raw()
    if kind in ("inter", "item", "user"):  # name:type
        names = _distinct([name.split(":", 1)[0] for name in raw.columns], raw.name)
        raw = Raw(raw.frame.rename(dict(zip(raw.columns, names, strict=True))), raw.name, names, raw.where)
    return raw


def _open(path: Path) -> BinaryIO:
    """The file's bytes, decompressed."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path))
    file = path.open("rb")
    if file.peek(2)[:2] == b"\x1f\x8b":
        raise OSError("it is compressed by gzip: let its name end in .gz")
    return file


def _parquet(path: Path, wanted: Mapping[str, str | None] | None) -> Raw:
    source = io.BytesIO(gzip.open(path).read()) if path.name.lower().endswith(".gz") else path
    names = list(pl.read_parquet_schema(source))
    frame = pl.read_parquet(source, columns=[name for name in names if wanted is None or name in wanted])
    return Raw(frame, str(path), names, row_number)


def _movielens(data: bytes, name: str, separator: str, columns: list[str]) -> Raw:
    """A file of MovieLens: no header; in older ones the text is latin-1."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    if len(separator) > 1:
        data, separator = data.replace(separator.encode(), b"\x1f"), "\x1f"
    raw = TextTable(data, name, separator, quoted=False, header=columns).raw()
    if "Western" not in columns:
        return raw
    genres = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in MOVIELENS_GENRES]
    texts = raw.frame.select(pl.concat_list(genres).list.drop_nulls().list.join(", ").alias("categories"))
    kept = [column for column in columns if column not in MOVIELENS_GENRES]
    return Raw(raw.frame.select(kept).hstack(texts), name, [*kept, "categories"], raw.where)


def _distinct(names: list[str], file: str) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{file}: the header names column {shown(twice)} twice: rename one")
    return names


class TextTable:
    """Lines of cells with a separator between.

    Polars reads the table; whether each row has as many cells as the header is told from the number of separators outside
    quotes. Only where that number is wrong, or the quotes are unusual, are the records walked through one by one.

    Args:
        data: the file's bytes, UTF-8.
        name: the file's name, for errors.
        separator: one character of ASCII.
        quoted: cells may stand in double quotes, and then hold separators, line ends and doubled quotes.
        header: names of the columns of a file that has no header.
    """

    def __init__(self, data: bytes, name: str, separator: str, quoted: bool, header: list[str] | None = None) -> None:
        if len(separator) != 1 or not separator.isascii() or separator in '\r\n"':
            raise ValueError(f"--separator {separator!r}: one character is needed")
        self.data = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n"
        self.name, self.separator, self.quoted = name, separator, quoted
        self.has_header = header is None
        self.header = self._header() if header is None else header

    def raw(self) -> Raw:
        frame = self._fast() if len(self.header) > 1 else None
        return Raw(self._walked() if frame is None else frame, self.name, self.header, self._where)

    def _header(self) -> list[str]:
        first = next(self._records(), None)
        if first is None:
            raise ValueError(f"{self.name}: cannot be read as a table: the file is empty")
        header = first[1]
        if len(header) == 1:
            other = next((one for one in USUAL_SEPARATORS if one in header[0] and one != self.separator), None)
            if other is not None:
                way = "name it as MovieLens does (ratings.dat)" if len(other) > 1 else f"give --separator {other!r}"
                expected = f"with {self.separator!r} between the cells, the header is one cell that holds {other!r}"
                raise ValueError(f"{self.name}: {expected}: if that parts the columns, {way}")
        return _distinct(header, self.name)

    def _fast(self) -> pl.DataFrame | None:
        """The table as Polars reads it, or None if it is not certain that it is what the file says."""
        separators = _separators(self.data, self.separator, self.quoted)
        if separators is None:
            return None
        names = {"has_header": True} if self.has_header else {"has_header": False, "new_columns": self.header}
        try:
            frame = pl.read_csv(
                self.data, infer_schema=False, separator=self.separator, quote_char='"' if self.quoted else None, **names
            )
        except pl.exceptions.PolarsError:
            return None
        if frame.columns != self.header:
            return None
        whole = separators == (len(frame) + self.has_header) * (len(self.header) - 1)  # Polars takes no row that is too long
        return frame if whole else None

    def _walked(self) -> pl.DataFrame:
        """The table, record by record, each checked to have as many cells as the header."""
        parts, n = [], len(self.header)
        records = self._rows()
        while chunk := list(islice(records, 100_000)):
            for line, cells in chunk:
                if len(cells) != n:
                    what = "the header has" if self.has_header else "this kind of file has"
                    raise ValueError(f"{self.name}, line {line}: {len(cells)} cells where {what} {n}")
            columns = zip(*(cells for _, cells in chunk), strict=True)
            parts.append([pl.Series([cell or None for cell in column], dtype=pl.String) for column in columns])
        whole = [joined(column) for column in zip(*parts, strict=True)] if parts else [pl.Series(dtype=pl.String)] * n
        return pl.DataFrame([column.alias(name) for name, column in zip(self.header, whole, strict=True)])

    def _rows(self) -> Iterator[Record]:
        """The records below the header."""
        return islice(self._records(), int(self.has_header), None)

    def _where(self, row: int) -> str:
        return f"line {next(islice(self._rows(), row, None))[0]}"

    def _records(self) -> Iterator[Record]:
        """All records; lines without a character are left out."""
        try:
            yield from self._quoted_records() if self.quoted else self._plain_records()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.name}, line {self._bad_line()}: not UTF-8 text: save the file as UTF-8") from error

    def _bad_line(self) -> int:
        """The first line that is not UTF-8."""
        try:
            self.data.decode()
        except UnicodeDecodeError as error:
            return self.data.count(b"\n", 0, error.start) + 1
        raise AssertionError("the text is UTF-8")

    def _plain_records(self) -> Iterator[Record]:
        for line, content in enumerate(io.BytesIO(self.data), 1):
            if text := content.decode().removesuffix("\n").removesuffix("\r"):
                yield line, text.split(self.separator)

    def _quoted_records(self) -> Iterator[Record]:
        limit = csv.field_size_limit(2**31 - 1)
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(self.data), "utf-8", newline=""), delimiter=self.separator, strict=True)
        begin = 1
        try:
            for cells in reader:
                if cells:
                    yield begin, cells
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{self.name}, line {begin}: {first_line(error)}: close each quote, and double those inside of a quoted cell"
            ) from error
        finally:
            csv.field_size_limit(limit)


def _separators(data: bytes, separator: str, quoted: bool) -> int | None:
    """How many separators stand outside quotes; None where a quote neither begins nor ends a cell, or a line ends oddly."""
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return None
    if not quoted or b'"' not in data:
        return data.count(separator.encode())
    cells = np.frombuffer(b"\n" + data + b"\n", dtype=np.uint8)
    quotes = np.flatnonzero(cells == ord('"'))
    edges = np.frombuffer(f'\r\n"{separator}'.encode(), dtype=np.uint8)
    if len(quotes) % 2 or not (np.isin(cells[quotes[0::2] - 1], edges).all() and np.isin(cells[quotes[1::2] + 1], edges).all()):
        return None
    places = np.flatnonzero(cells == ord(separator))
    return int((np.searchsorted(quotes, places) % 2 == 0).sum())
