"""File formats. A new format is one module with a reader, and one line of `FORMATS`.

A reader takes a `SourceFile`: the file, the user's options, the wanted columns and the size limit. It
returns a `RawTable`: the cells as they are, and the location of each row for errors. A typed reader keeps
at least the wanted columns; cells may be numbers, dates and lists. A reader of text keeps each cell as
text, so that the id 007 stays 007. Errors are ValueError with the file's name, or any of `UNREADABLE`.

`FORMATS` is searched in order. The first format that recognises a file reads it.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import polars as pl

from cllm4rec.data.readers.advice import format_advice
from cllm4rec.data.readers.decompression import Allowance
from cllm4rec.data.readers.delimited import is_delimited, read_delimited
from cllm4rec.data.readers.json_lines import read_json
from cllm4rec.data.readers.movielens import is_movielens, read_movielens
from cllm4rec.data.readers.multifile import concatenate_tables, table_files
from cllm4rec.data.readers.netflix import is_netflix, read_netflix
from cllm4rec.data.readers.parquet import read_parquet
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.recbole import read_recbole
from cllm4rec.data.readers.sequences import is_sequences, read_sequences
from cllm4rec.data.readers.source import Source, SourceFile, TableFile, WantedColumns, file_suffix
from cllm4rec.files.memory import NO_MEMORY, out_of_memory
from cllm4rec.messages import error_line


class Content(Enum):
    """What the files of a format hold."""

    COLUMNS = "typed columns, in binary"  # files of one folder have the same columns
    RECORDS = "typed records"  # a record may lack columns, and so may a file of a folder
    NAMED_TEXT = "cells of text in columns that the format names"
    TEXT = "cells of text"  # the options `header` and `sequences` say how to read it


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffixes: endings of the names of such files, lower case, without the dot; .gz may follow.
        content: typed or text.
        recognise: whether the format is that of a file; None: the suffix tells.
        read: the reader.
    """

    suffixes: tuple[str, ...]
    content: Content
    recognise: Callable[[SourceFile], bool] | None
    read: Callable[[SourceFile], RawTable]

    def matches(self, file: SourceFile) -> bool:
        """Whether the format is that of a file."""
        return file.suffix in self.suffixes if self.recognise is None else self.recognise(file)


FORMATS = (
    Format(("parquet",), Content.COLUMNS, None, read_parquet),
    Format(("json", "jsonl"), Content.RECORDS, None, read_json),
    Format((), Content.NAMED_TEXT, is_movielens, read_movielens),  # by whole name: u.item is not RecBole's
    Format((), Content.TEXT, is_sequences, read_sequences),  # by option
    Format((), Content.TEXT, is_netflix, read_netflix),  # by the first lines
    Format(("inter", "item", "user"), Content.TEXT, None, read_recbole),
    Format(("tsv", "csv"), Content.TEXT, is_delimited, read_delimited),
)

# Errors of a damaged file, other than ValueError.
UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    MemoryError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)


def read_raw(
    source: Source, wanted_columns: WantedColumns | None = None, id_columns: Sequence[str] = ()
) -> RawTable:
    """Read a file, or the part files in a folder.

    Args:
        source: the file or folder.
        wanted_columns: columns to keep of typed files -> joiner of their lists (None: keep lists); None: all.
        id_columns: names of the table's id column. The keys of a keyed JSON object get the first one.

    Raises:
        ValueError: there is no such file, its format is unknown, or it cannot be read; the message names
            file and line.
    """
    options = source if isinstance(source, TableFile) else TableFile(source)
    path = Path(options.path)
    if options.sequences and not options.header:
        raise ValueError("`sequences` reads lines without columns: leave out `header=False` and `columns`")
    try:
        if not path.is_dir():
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file")
            allowance = Allowance(path.stat().st_size, options.max_unpacked_gib)
            return _read(_source_file(path, options, allowance, wanted_columns, id_columns))
        paths = table_files(path)
        content = _content_of_suffix(file_suffix(paths[0]))
        allowance = Allowance(sum(file.stat().st_size for file in paths), options.max_unpacked_gib)
        if content is not Content.COLUMNS:  # an empty text file has no rows
            paths = [file for file in paths if file.stat().st_size] or paths
        tables = [_read(_source_file(file, options, allowance, wanted_columns, id_columns)) for file in paths]
        return concatenate_tables(path, tables, same_columns=content is not Content.RECORDS)
    except (OSError, MemoryError) as error:
        raise ValueError(f"{path}: {NO_MEMORY if out_of_memory(error) else error_line(error)}") from error


def _content_of_suffix(suffix: str) -> Content | None:
    """The content of files with a suffix; None if no format has it."""
    return next((entry.content for entry in FORMATS if suffix in entry.suffixes), None)


def _source_file(
    path: Path,
    options: TableFile,
    allowance: Allowance,
    wanted_columns: WantedColumns | None,
    id_columns: Sequence[str],
) -> SourceFile:
    """What a reader is given."""
    is_text = (
        _content_of_suffix(file_suffix(path)) is Content.TEXT
        or options.separator is not None
        or options.sequences
    )
    return SourceFile(path, options, allowance, wanted_columns, id_columns, is_text)


def _read(file: SourceFile) -> RawTable:
    """Read one file.

    Raises:
        ValueError: its format is unknown, the options do not fit it, or it is damaged.
    """
    try:
        file_format = next((entry for entry in FORMATS if entry.matches(file)), None)
        if file_format is None:
            raise ValueError(f"{file.path}: unknown file format: {_naming_advice(file)}")
        if file_format.content is not Content.TEXT and (file.options.sequences or not file.options.header):
            option = "sequences" if file.options.sequences else "header=False"
            raise ValueError(f"{file.path}: the columns of such a file have names: leave out `{option}`")
        return file_format.read(file)
    except UNREADABLE as error:
        is_memory = out_of_memory(error)
        reason = NO_MEMORY if is_memory else f"cannot be read as {file.suffix}: {error_line(error)}"
        raise ValueError(f"{file.path}: {reason}") from error


def _naming_advice(file: SourceFile) -> str:
    """How to name or read a file whose format is unknown."""
    suffixes = [f".{suffix}" for entry in reversed(FORMATS) for suffix in entry.suffixes]
    names = f"{', '.join(suffixes[:-1])} or {suffixes[-1]} (.gz may follow)"
    advice = format_advice(file.beginning, file.name, file.options.content)
    return f"name it {names}, or {advice or 'give `separator` for a text table'}"
