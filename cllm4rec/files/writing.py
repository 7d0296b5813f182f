"""Files that are whole or absent, whenever a process is killed and whatever other processes write."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from safetensors import SafetensorError

from cllm4rec.files.locks import check_parents, locked
from cllm4rec.files.temporary import remove_unfinished, unfinished_name
from cllm4rec.messages import error_line

WAIT_SECONDS = 60.0  # for another process that writes the same file
UNWRITABLE = (OSError, pl.exceptions.PolarsError, SafetensorError)  # errors of a full disk, by who writes
UMASK = os.umask(0o022)  # it can only be read by setting it
os.umask(UMASK)
RESERVED = re.compile(r"run\.json|metrics\.jsonl|\w+-state\.safetensors")  # files of a run folder
TABLES = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a new file to write; it takes the place of `path` when the block ends without an error.

    Readers see the old file or the new one, whole. After an error nothing is left of the new one. Behind a link, the
    file that it leads to is replaced.

    Raises:
        ValueError: it cannot be written, or another process writes it for longer than a minute.
    """
    path = Path(os.path.realpath(path))
    with locked(path, WAIT_SECONDS):
        remove_unfinished(path)
        new = unfinished_name(path)
        try:
            yield new
            to_disk(new)
            os.replace(new, path)
        except UNWRITABLE as error:
            raise ValueError(f"{path}: cannot be written: {error_line(error)}") from error
        finally:
            new.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, and unfinished ones of killed processes."""
    with locked(path, WAIT_SECONDS):
        path.unlink(missing_ok=True)
        remove_unfinished(path)


def to_disk(file: Path) -> None:
    """Write a file's content to the disk before its name is known; its permissions are those of the umask."""
    if file.is_file():
        file.chmod(0o666 & ~UMASK)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8."""
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


def check_table_name(path: str) -> None:
    """Raise ValueError unless the name says which kind of table to write, and it can be written there."""
    if Path(path).suffix not in TABLES:
        raise ValueError(f"{path}: let its name end in .parquet, .csv or .jsonl, which says the kind of file")
    check_file(path)


def check_file(path: str) -> None:
    """Raise ValueError unless a file can be written: its folder exists, and it is no file that a command reads."""
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {Path(path).parent}")
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is not a regular file: name another one")
    if RESERVED.fullmatch(Path(path).name) and (Path(path).absolute().parent / "run.json").is_file():
        raise ValueError(f"{path} is a file of the run: name another one")
    check_parents(Path(os.path.realpath(path)))


def write_table(table: pl.DataFrame, path: str) -> None:
    """Write a table as the kind its name says; the file is whole or absent."""
    with replace_file(Path(path)) as new:
        getattr(table, TABLES[Path(path).suffix])(new)
