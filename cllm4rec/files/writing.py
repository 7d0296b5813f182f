"""Atomic files: whole or absent, whenever a process is killed and whatever other processes write."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from safetensors import SafetensorError

from cllm4rec.files.locks import check_parents, locked
from cllm4rec.files.temporary import remove_temporary, temporary_path
from cllm4rec.messages import error_line

FILE_WAIT_SECONDS = 60.0  # for another process that writes the same file
WRITE_ERRORS = (OSError, pl.exceptions.PolarsError, SafetensorError)  # each library's error on a full disk
UMASK = os.umask(0o022)  # it can only be read by setting it
os.umask(UMASK)
RUN_FILE = re.compile(r"run\.json|metrics\.jsonl|\w+-state\.safetensors")
TABLE_WRITERS = {
    ".parquet": "write_parquet",
    ".csv": "write_csv",
    ".jsonl": "write_ndjson",
}  # of pl.DataFrame


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which replaces `path` when the block ends without an error.

    Readers see the old file or the new one, whole. After an error the new one is removed. If `path` is a
    link, its target is replaced.

    Raises:
        ValueError: the file cannot be written, or another process writes it for longer than a minute.
    """
    path = Path(os.path.realpath(path))
    with locked(path, FILE_WAIT_SECONDS):
        remove_temporary(path)
        new = temporary_path(path)
        try:
            yield new
            flush_to_disk(new)
            os.replace(new, path)
        except WRITE_ERRORS as error:
            raise ValueError(f"{path}: cannot be written: {error_line(error)}") from error
        finally:
            new.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, and the temporary files that killed processes left of it."""
    with locked(path, FILE_WAIT_SECONDS):
        path.unlink(missing_ok=True)
        remove_temporary(path)


def flush_to_disk(file: Path) -> None:
    """Flush a new file's content to the disk and give it the permissions of the umask."""
    if file.is_file():
        file.chmod(0o666 & ~UMASK)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file with a text, in UTF-8."""
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


def check_table_name(path: str) -> None:
    """Refuse an output table whose format is unknown or that cannot be written.

    Raises:
        ValueError: the suffix is not one of `TABLE_WRITERS`, or `check_file` refuses the path.
    """
    if Path(path).suffix not in TABLE_WRITERS:
        raise ValueError(f"{path}: let its name end in .parquet, .csv or .jsonl, which says the kind of file")
    check_file(path)


def check_file(path: str) -> None:
    """Refuse an output file that cannot be written.

    Raises:
        ValueError: its folder is missing, or the path is no regular file or a file of a run.
    """
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {Path(path).parent}")
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is not a regular file: name another one")
    if RUN_FILE.fullmatch(Path(path).name) and (Path(path).absolute().parent / "run.json").is_file():
        raise ValueError(f"{path} is a file of the run: name another one")
    check_parents(Path(os.path.realpath(path)))


def write_table(table: pl.DataFrame, path: str) -> None:
    """Write a table in the format of its suffix. The file is whole or absent."""
    with replace_file(Path(path)) as new:
        getattr(table, TABLE_WRITERS[Path(path).suffix])(new)
