"""What a reader is given: the file, the options of the user, the columns to keep and the size limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cllm4rec.data.readers.decompression import (
    UTF8_MARK,
    Allowance,
    encoding_of_mark,
    open_unpacked,
    read_text,
)

BEGINNING_BYTES = 2**16
WantedColumns = Mapping[
    str, str | None
]  # column of the source -> joiner of list-valued cells; None: keep lists


@dataclass(frozen=True)
class TableFile:
    """A file, or a folder of part files, with options that its name does not tell.

    Attributes:
        path: the file or folder.
        separator: a character between the cells of a text table; None: as the name says.
        header: the first row of a text table names the columns. Otherwise they are called 1, 2, ...
        sequences: each line of text is a user and the items in order.
        escape: a character after which the next one is an ordinary character of a cell.
        encoding: of text that is not UTF-8 and has no byte order mark.
        max_unpacked_gib: limit for compressed data; None: 100 times its size, and at least 1 GiB.
        content: "the events", "the items", "the users" or "the split", for advice in errors.
    """

    path: str | Path
    separator: str | None = None
    header: bool = True
    sequences: bool = False
    escape: str | None = None
    encoding: str | None = None
    max_unpacked_gib: float | None = None
    content: str = "the events"


Source = str | Path | TableFile


@dataclass(frozen=True)
class SourceFile:
    """One file that a reader turns into a `RawTable`.

    Attributes:
        path: the file.
        options: what the user says about it.
        allowance: limits the unpacked size.
        wanted_columns: the columns that may be needed, with the joiners of their lists; None: all. Readers of
            text keep all columns, since text is cheap.
        id_columns: names of the table's id column. The ids of keyed JSON objects get the first one.
        is_text: its name or its options say that it is a text table.
    """

    path: Path
    options: TableFile
    allowance: Allowance
    wanted_columns: WantedColumns | None = None
    id_columns: Sequence[str] = ()
    is_text: bool = False

    @property
    def name(self) -> str:
        """The name of the file for errors."""
        return str(self.path)

    @property
    def base_name(self) -> str:
        """The name without folders and .gz, in lower case."""
        return self.path.name.lower().removesuffix(".gz")

    @property
    def suffix(self) -> str:
        """The ending of the name without .gz and the dot, in lower case."""
        return file_suffix(self.path)

    @cached_property
    def beginning(self) -> bytes:
        """The first bytes, as UTF-8 if a byte order mark tells the encoding."""
        allowance = Allowance(self.path.stat().st_size, self.options.max_unpacked_gib)
        with open_unpacked(self.path, allowance) as file:
            beginning = file.read(BEGINNING_BYTES)
        encoding = encoding_of_mark(beginning)
        return beginning if encoding is None else beginning.decode(encoding, "ignore").encode()

    @cached_property
    def text(self) -> bytes:
        """The whole text as UTF-8.

        Raises:
            ValueError: it is empty, or not text of the encoding.
        """
        return self.text_in(self.options.encoding)

    @property
    def sample(self) -> bytes:
        """What a text format is recognised by. A file that need not be text is not read whole for it."""
        return self.text if self.is_text else self.beginning

    def text_in(self, encoding: str | None) -> bytes:
        """The whole text as UTF-8, where `encoding` is that of text which is not UTF-8.

        Raises:
            ValueError: the file is empty, or cannot be read as text.
        """
        text = read_text(self.path, self.allowance, encoding)
        if not text.removeprefix(UTF8_MARK).strip():
            raise ValueError(f"{self.path}: cannot be read as {self.suffix}: the file is empty")
        return text


def file_suffix(path: Path) -> str:
    """The ending of a file's name without .gz and the dot, in lower case."""
    return path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
