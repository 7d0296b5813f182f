"""Folders and files that appear whole or not at all, whenever the process is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl


@contextmanager
def replace_folder(folder: Path, marker: str) -> Iterator[Path]:
    """Give a new folder to write into, and put it in the place of `folder` when the block ends without an error.

    Args:
        folder: where the result shall be. A folder that holds the file `marker` is replaced, an empty one too.
        marker: name of the file that every folder of this kind holds.

    Raises:
        ValueError: `folder` exists and is something else.
    """
    check_folder(folder, marker)
    folder, new, old = mend_folder(folder)
    for left in (new, old):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    made = next((one for one in reversed((folder.parent, *folder.parent.parents)) if not one.exists()), None)
    try:
        new.mkdir(parents=True)
        yield new
        for file in new.rglob("*"):
            _to_disk(file)
    except BaseException:
        for half in (new, made):  # and the folders made above it
            if half is not None:
                shutil.rmtree(half, ignore_errors=True)
        raise
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)  # killed before this line: `mend_folder` does it
    except FileNotFoundError:  # a reader has just done so
        if not folder.exists():
            raise
    shutil.rmtree(old, ignore_errors=True)


def mend_folder(folder: Path) -> tuple[Path, Path, Path]:
    """Finish a replacement that was cut off between its two renames.

    Returns:
        The absolute path of the folder, where a new one is written, and where the old one goes meanwhile.
    """
    folder = Path(os.path.abspath(folder))
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():  # the old one is moved away only when the new one is whole
        os.replace(new if new.exists() else old, folder)
    return folder, new, old


def check_folder(folder: Path, marker: str) -> None:
    """Raise ValueError unless `folder` is new, empty, or holds the file `marker`, so that it may be replaced."""
    mend_folder(folder)
    if folder.exists() and not (folder / marker).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not a folder of this kind (no {marker}): name another one")
    check_above(folder)


def check_above(folder: Path) -> None:
    """Raise ValueError if a folder cannot be made since a file stands where one of those above it would be."""
    above = next(one for one in folder.absolute().parents if one.exists())
    if not above.is_dir():
        raise ValueError(f"{folder}: {above} is a file, not a folder: name another one")


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Give a file in a folder of its own to write, and rename it to `path` when the block ends: readers see the old file or
    the new one, each whole. After an error nothing is left of it, and what a killed process left goes with the next writing."""
    folder = _aside(path)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder / path.name
        _to_disk(folder / path.name)
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_file(path: Path) -> None:
    """Remove a file, and what a process that was killed while writing it left."""
    path.unlink(missing_ok=True)
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _to_disk(file: Path) -> None:
    """Have a file's content on disk before its name is made known, to be read by whom the umask allows."""
    if file.is_file():
        mask = os.umask(0)
        os.umask(mask)
        file.chmod(0o666 & ~mask)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it."""
    with write_aside(path) as aside:
        aside.write_text(text)


TABLES = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


def check_table_name(path: str) -> None:
    """Raise ValueError unless the name says which kind of table to write, and its folder exists."""
    if Path(path).suffix not in TABLES:
        raise ValueError(f"{path}: name it {', '.join(TABLES)}, so that the kind of file is known")
    check_place(path)


def check_place(path: str) -> None:
    """Raise ValueError unless the folder of a file to be written exists."""
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {Path(path).parent}")


def write_table(table: pl.DataFrame, path: str) -> None:
    """Write a table as the kind its name says; the file appears whole or not at all."""
    with write_aside(Path(path)) as aside:
        getattr(table, TABLES[Path(path).suffix])(aside)
