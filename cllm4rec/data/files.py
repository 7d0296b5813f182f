"""Folders that appear whole or not at all."""

import os
import shutil
import tempfile
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
    made = next((one for one in reversed((folder.parent, *folder.parent.parents)) if not one.exists()), None)
    new = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        yield new
        os.chmod(new, 0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old / folder.name)
            try:
                os.replace(new, folder)
            except BaseException:
                os.replace(old / folder.name, folder)
                raise
            finally:
                shutil.rmtree(old)
        else:
            os.replace(new, folder)
    except BaseException:
        for half in (new, made):  # and the folders made above it
            if half is not None:
                shutil.rmtree(half, ignore_errors=True)
        raise


def check_folder(folder: Path, marker: str) -> None:
    """Raise ValueError unless `folder` is new, empty, or holds the file `marker`, so that it may be replaced."""
    if folder.exists() and not (folder / marker).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not a folder of this kind (no {marker}): name another one")
    above = next(one for one in folder.absolute().parents if one.exists())
    if not above.is_dir():
        raise ValueError(f"{folder}: {above} is a file, not a folder: name another one")


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it, so that a reader sees the old text or the new one."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    os.replace(aside, path)


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
    aside = Path(path).with_name(f".{Path(path).name}.new")
    getattr(table, TABLES[Path(path).suffix])(aside)
    os.replace(aside, path)
