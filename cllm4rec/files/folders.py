"""Folders that are whole or absent: replaced in one step, and read as they were at one moment."""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cllm4rec.files.locks import check_parents, locked
from cllm4rec.files.manifest import foreign_file
from cllm4rec.files.temporary import OLD, cut_off, remove_unfinished, unfinished_name
from cllm4rec.files.writing import UNWRITABLE, to_disk
from cllm4rec.messages import error_line

T = TypeVar("T")
MOST_READS = 1000
WAIT_SECONDS = 10.0  # for a writer that is between two renames
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def replace_folder(folder: Path, marker: str) -> Iterator[Path]:
    """Give a new folder to write into; it takes the place of `folder` when the block ends without an error.

    Readers see the old folder or the new one, whole. A killed process leaves the old or the new one too, and its
    unfinished folder is removed by the next replacement. Behind a link, the folder that it leads to is replaced.

    Args:
        folder: where the result shall be. A folder that holds the file `marker` is replaced, an empty one too.
        marker: name of a file that every folder of this kind holds.

    Raises:
        ValueError: `folder` is something else, holds foreign files, is being written by another process, or cannot be
            written.
    """
    folder = Path(os.path.realpath(folder))
    with locked(folder):
        check_folder(folder, marker)
        remove_unfinished(folder)
        new = unfinished_name(folder)
        new.mkdir()
        try:
            yield new
            for file in new.rglob("*"):
                to_disk(file)
            _swap(new, folder)
        except UNWRITABLE as error:
            raise ValueError(f"{folder}: cannot be written: {error_line(error)}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)  # half written, or the old folder


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, in one step where the system can."""
    if not folder.exists():
        os.rename(new, folder)
    elif not _exchange(new, folder):
        old = new.with_name(new.name + OLD)
        os.rename(folder, old)
        os.rename(new, folder)  # killed before this line: `recover_folder` does it
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    if not rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def recover_folder(folder: Path) -> None:
    """Finish a replacement that was cut off between its two renames."""
    folder = Path(os.path.realpath(folder))
    if cut_off(folder):
        with locked(folder, WAIT_SECONDS):
            remove_unfinished(folder)


def read_folder(folder: Path, read: Callable[[Path], T]) -> T:
    """Read a folder as it was at one moment, while other processes may replace it.

    Args:
        folder: a folder that `replace_folder` writes.
        read: reads its files. It is called again if the folder was replaced meanwhile.

    Raises:
        ValueError: the folder is replaced faster than it can be read.
    """
    for _ in range(MOST_READS):
        recover_folder(folder)
        before = _identity(folder)
        try:
            result = read(folder)
        except Exception:
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return result
    raise ValueError(f"{folder} was replaced {MOST_READS} times while it was read: try again")


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """Tells a folder from its replacement; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_folder(folder: Path, marker: str) -> None:
    """Raise ValueError unless `folder` is new, empty, or a folder of this kind without foreign files.

    Args:
        folder: the folder that shall be written.
        marker: name of a file that every folder of this kind holds.
    """
    recover_folder(folder)
    check_parents(Path(os.path.realpath(folder)))
    if not folder.exists():
        return
    if os.path.ismount(folder) or Path.cwd().is_relative_to(os.path.realpath(folder)):
        what = "a mount point" if os.path.ismount(folder) else "the current folder, or holds it"
        raise ValueError(f"{folder} is {what}, and cannot be replaced: name a folder in it")
    if not (folder / marker).is_file():
        if not folder.is_dir() or any(folder.iterdir()):
            raise ValueError(
                f"{folder} exists and is not a folder of this kind (no {marker}): name another one"
            )
    elif (foreign := foreign_file(folder)) is not None:
        raise ValueError(
            f"{folder} holds {foreign}, which is not a file of this package: move it, or name another folder"
        )
