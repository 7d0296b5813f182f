"""Files -> tables as they stand in them: TSV, CSV, JSON lines, Parquet, RecBole's and MovieLens' files, plain or gzip."""

import io
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from cllm4rec.data.readers.advice import first_lines, likely_way, sequence_way
from cllm4rec.data.readers.decompression import Allowance, marked_encoding, open_unpacked, recoded, text_of
from cllm4rec.data.readers.json_lines import read_json
from cllm4rec.data.readers.layouts import is_blocks, read_blocks, read_sequences
from cllm4rec.data.readers.multifile import joined_parts, part_files
from cllm4rec.data.readers.parquet import read_parquet
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.text import TextTable, distinct, stated_separator
from cllm4rec.files.memory import NO_MEMORY, out_of_memory
from cllm4rec.messages import error_line

SEPARATORS = {"tsv": "\t", "csv": ",", "inter": "\t", "item": "\t", "user": "\t"}
ATOMIC = ("inter", "item", "user")  # RecBole's files, which write name:type in the header
TYPED = ("jsonl", "json", "parquet")
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
UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    MemoryError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
BEGINNING = 2**16  # bytes that are looked at in a file whose name does not say its kind


@dataclass(frozen=True)
class TableFile:
    """A file, or a folder of parts, with what its name does not say about it.

    Attributes:
        path: where it is.
        separator: one character between the cells of a text table; None: as the name says.
        header: the first row of a text table holds the names of the columns; False: they are called 1, 2, ...
        sequences: each line of text is a user and the items in order.
        escape: a character after which the next has no special meaning in a text table.
        encoding: of text that is not UTF-8 and has no byte order mark.
        max_unpacked_gib: what compressed data may unpack to; None: 100 times its size, and at least 1 GiB.
        holds: which table it is, for advice in errors: the events, the items, the users or the split.
    """

    path: str | Path
    separator: str | None = None
    header: bool = True
    sequences: bool = False
    escape: str | None = None
    encoding: str | None = None
    max_unpacked_gib: float | None = None
    holds: str = "the events"


Source = str | Path | TableFile


def read_raw(
    source: Source, wanted: Mapping[str, str | None] | None = None, id_names: Sequence[str] = ()
) -> RawTable:
    """Read a file, or the parts in a folder; the kind follows from the name.

    Text tables keep each cell as text, so that the id 007 stays 007; JSON and Parquet keep their types.

    Args:
        source: the file.
        wanted: the columns to keep of JSON and Parquet -> what to put between the texts of a list (None: leave lists be).
            All columns if not given.
        id_names: names of the column that the keys of one JSON object are; it is called by the first.

    Raises:
        ValueError: there is no such file, it is of another kind, or it cannot be read; the message names file and line.
    """
    source = source if isinstance(source, TableFile) else TableFile(source)
    path = Path(source.path)
    if source.sequences and not source.header:
        raise ValueError("--sequences reads lines without columns: leave out --no-header and --columns")
    try:
        if not path.is_dir():
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file")
            return _read(
                path, source, wanted, id_names, Allowance(path.stat().st_size, source.max_unpacked_gib)
            )
        files = part_files(path)
        allowance = Allowance(sum(file.stat().st_size for file in files), source.max_unpacked_gib)
        if _kind(files[0]) != "parquet":  # a text file without a byte is a part without a row
            files = [file for file in files if file.stat().st_size] or files
        parts = [_read(file, source, wanted, id_names, allowance) for file in files]
        return joined_parts(path, parts, typed=_kind(files[0]) not in ("jsonl", "json"))
    except (OSError, MemoryError) as error:
        raise ValueError(f"{path}: {NO_MEMORY if out_of_memory(error) else error_line(error)}") from error


def _kind(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]


def _read(
    path: Path,
    source: TableFile,
    wanted: Mapping[str, str | None] | None,
    id_names: Sequence[str],
    allowance: Allowance,
) -> RawTable:
    """A file that is not a folder."""
    kind, name = _kind(path), path.name.lower().removesuffix(".gz")
    movielens = next((known for pattern, known in MOVIELENS.items() if re.fullmatch(pattern, name)), None)
    if (movielens or kind in TYPED) and (source.sequences or not source.header):
        flag = "--sequences" if source.sequences else "--no-header"
        raise ValueError(f"{path}: the columns of such a file have names already: leave out {flag}")
    try:
        if kind == "parquet":
            return read_parquet(path, wanted, allowance)
        if kind in TYPED:
            way = sequence_way(first_lines(_beginning(path, source)), str(path), source.holds)
            if way is not None:
                raise ValueError(f"{path}: it holds no JSON: name it .txt, and give {way}")
            with _json_file(path, source.encoding, allowance) as file:
                return read_json(file, str(path), wanted, id_names)
        if movielens is None and kind not in SEPARATORS and source.separator is None and not source.sequences:
            _check_beginning(path, source)
        data = text_of(path, allowance, "latin-1" if movielens else source.encoding)
        if not data.removeprefix(b"\xef\xbb\xbf").strip():
            raise ValueError(f"{path}: cannot be read as {kind}: the file is empty")
        if movielens is not None:
            return _movielens(data, str(path), movielens[0], list(movielens[1]))
        return _text(data, path, source, wanted)
    except UNREADABLE as error:
        reason = NO_MEMORY if out_of_memory(error) else f"cannot be read as {kind}: {error_line(error)}"
        raise ValueError(f"{path}: {reason}") from error


def _json_file(path: Path, encoding: str | None, allowance: Allowance) -> BinaryIO:
    """The text of a JSON file as UTF-8."""
    file = cast(io.BufferedReader, open_unpacked(path, allowance))
    if encoding is None and marked_encoding(file.peek(4)) is None:
        return file
    with file:
        return io.BytesIO(recoded(file.read(), str(path), encoding))


def _beginning(path: Path, source: TableFile) -> bytes:
    """The first bytes of a file, as UTF-8 where a mark says the encoding."""
    with open_unpacked(path, Allowance(path.stat().st_size, source.max_unpacked_gib)) as file:
        beginning = file.read(BEGINNING)
    encoding = marked_encoding(beginning)
    if encoding is not None:
        beginning = beginning.decode(encoding, "ignore").encode()
    return beginning


def _check_beginning(path: Path, source: TableFile) -> None:
    """Raise ValueError unless a file whose name says nothing says itself how it is to be read."""
    beginning = _beginning(path, source)
    if not is_blocks(beginning) and stated_separator(beginning) is None:
        way = likely_way(beginning, str(path), source.holds) or "give --separator for a table of text"
        raise ValueError(f"{path}: unknown kind of file: name it {KINDS}, or {way}")


def _text(data: bytes, path: Path, source: TableFile, wanted: Collection[str] | None) -> RawTable:
    """A text table, or text in one of the other layouts."""
    kind, name = _kind(path), str(path)
    if source.sequences:
        return read_sequences(data, name, " \t" + ("," if kind == "csv" else "") + (source.separator or ""))
    stated = stated_separator(data)
    if stated is not None and source.separator not in (None, stated):
        contradiction = f"its first line says sep={stated}, and --separator says {source.separator!r}"
        raise ValueError(f"{path}: {contradiction}: remove that line, or leave out the flag")
    if source.separator in (None, ",") and source.header and is_blocks(data):
        return read_blocks(data, name)
    separator = source.separator or stated or SEPARATORS[kind]
    table = TextTable(
        data,
        name,
        separator,
        kind == "csv",
        numbered=not source.header,
        escape=source.escape,
        holds=source.holds,
    )
    raw = table.raw(None if kind in ATOMIC else wanted)
    if kind in ATOMIC and source.header:  # name:type
        names = distinct([column.split(":", 1)[0] for column in raw.columns], name)
        raw = replace(raw, frame=raw.frame.rename(dict(zip(raw.columns, names, strict=True))), columns=names)
    return raw


def _movielens(data: bytes, name: str, separator: str, columns: list[str]) -> RawTable:
    """A file of MovieLens, which has no header."""
    if len(separator) > 1:
        data, separator = data.replace(separator.encode(), b"\x1f"), "\x1f"
    raw = TextTable(data, name, separator, quoted=False, header=columns).raw()
    if "Western" not in columns:
        return raw
    genres = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in MOVIELENS_GENRES]
    texts = raw.frame.select(pl.concat_list(genres).list.drop_nulls().list.join(", ").alias("categories"))
    kept = [column for column in columns if column not in MOVIELENS_GENRES]
    return RawTable(raw.frame.select(kept).hstack(texts), name, [*kept, "categories"], raw.where)
