"""Files that are whole or absent, whenever a process is killed and whatever other processes write."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from cllm4rec.data.locks import locked
from cllm4rec.data.raw import first_line

WAIT_SECONDS = 60.0  # for another process that writes the same file
UNFINISHED = ".cllm4rec-"  # in the names of files and folders that are being written
TABLES = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


def unfinished_name(path: Path) -> Path:
    """A new name beside `path` for a file or folder that is being written."""
    return path.with_name(f".{path.name}{UNFINISHED}{uuid.uuid4().hex[:12]}")


def unfinished(path: Path) -> list[Path]:
    """Unfinished files and folders of `path`: of the process that writes it, or of killed ones."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}{UNFINISHED}*"))


def remove_unfinished(path: Path) -> None:
    """Remove the unfinished files and folders of killed processes; the lock of `path` has to be held."""
    for left in unfinished(path):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a new file to write; it takes the place of `path` when the block ends without an error.

    Readers see the old file or the new one, whole. After an error nothing is left of the new one. Behind a link, the
    file that it leads to is replaced.

    Raises:
        ValueError: another process writes the same file for longer than a minute.
    """
    path = Path(os.path.realpath(path))
    with locked(path, WAIT_SECONDS):
        remove_unfinished(path)
        new = unfinished_name(path)
        try:
            yield new
            to_disk(new)
            os.replace(new, path)
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
        mask = os.umask(0)
        os.umask(mask)
        file.chmod(0o666 & ~mask)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8."""
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


def check_table_name(path: str) -> None:
    """Raise ValueError unless the name says which kind of table to write, and it can be written there."""
    if Path(path).suffix not in TABLES:
        raise ValueError(f"{path}: name it {', '.join(TABLES)}, so that the kind of file is known")
    check_file(path)


def check_file(path: str) -> None:
    """Raise ValueError unless a file can be written: its folder exists, and nothing but a file has its name."""
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {Path(path).parent}")
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is not a regular file: name another one")


def write_table(table: pl.DataFrame, path: str) -> None:
    """Write a table as the kind its name says; the file is whole or absent.

    Raises:
        ValueError: it cannot be written, say as the disk is full.
    """
    try:
        with replace_file(Path(path)) as new:
            getattr(table, TABLES[Path(path).suffix])(new)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path}: cannot be written: {first_line(error)}") from error
