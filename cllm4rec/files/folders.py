"""Atomic folders: replaced in one step, and read as they were at one moment."""

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
from cllm4rec.files.temporary import OLD_SUFFIX, remove_temporary, replacement_interrupted, temporary_path
from cllm4rec.files.writing import WRITE_ERRORS, flush_to_disk
from cllm4rec.messages import error_line

T = TypeVar("T")
MAX_READS = 1000
RECOVERY_WAIT_SECONDS = 10.0  # for a writer that is between two renames
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def replace_folder(folder: Path, marker: str) -> Iterator[Path]:
    """Yield a new folder to write into, which replaces `folder` when the block ends without an error.

    Readers see the old folder or the new one, whole. A killed process leaves the old or the new one too; its
    temporary folder is removed by the next replacement. If `folder` is a link, its target is replaced.

    Args:
        folder: path of the result. It may be new, empty, or a folder that holds the file `marker`.
        marker: name of a file that every folder of this kind holds.

    Raises:
        ValueError: `folder` is something else, holds foreign files, is being written by another process, or
            cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    with locked(folder):
        check_folder(folder, marker)
        remove_temporary(folder)
        new = temporary_path(folder)
        new.mkdir()
        try:
            yield new
            for file in new.rglob("*"):
                flush_to_disk(file)
            _swap(new, folder)
        except WRITE_ERRORS as error:
            raise ValueError(f"{folder}: cannot be written: {error_line(error)}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)  # half written, or the old folder


def _swap(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`, in one step where the system can."""
    if not folder.exists():
        os.rename(new, folder)
    elif not _exchange(new, folder):
        old = new.with_name(new.name + OLD_SUFFIX)
        os.rename(folder, old)
        os.rename(new, folder)  # if killed before this line, `recover_folder` does it
        shutil.rmtree(old, ignore_errors=True)


def _exchange(new: Path, folder: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    if not rename(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(folder), RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(folder))


def recover_folder(folder: Path) -> None:
    """Finish a replacement that was interrupted between its two renames."""
    folder = Path(os.path.realpath(folder))
    if replacement_interrupted(folder):
        with locked(folder, RECOVERY_WAIT_SECONDS):
            remove_temporary(folder)


def read_folder(folder: Path, read: Callable[[Path], T]) -> T:
    """Read a folder as it was at one moment, while other processes may replace it.

    Args:
        folder: a folder that `replace_folder` writes.
        read: reads its files. It is called again if the folder was replaced meanwhile.

    Raises:
        ValueError: the folder is replaced faster than it can be read.
    """
    for _ in range(MAX_READS):
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
    raise ValueError(f"{folder} was replaced {MAX_READS} times while it was read: try again")


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """Device, inode and change time, which differ for a replaced folder; None if there is no folder."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_folder(folder: Path, marker: str) -> None:
    """Refuse an output folder that may not be replaced.

    Args:
        folder: the output.
        marker: name of a file that every folder of this kind holds.

    Raises:
        ValueError: `folder` is neither new, nor empty, nor a folder of this kind without foreign files.
    """
    recover_folder(folder)
    check_parents(Path(os.path.realpath(folder)))
    if not folder.exists():
        return
    if os.path.ismount(folder) or Path.cwd().is_relative_to(os.path.realpath(folder)):
        kind = "a mount point" if os.path.ismount(folder) else "the current folder, or holds it"
        raise ValueError(f"{folder} is {kind}, and cannot be replaced: name a folder in it")
    if not (folder / marker).is_file():
        if not folder.is_dir() or any(folder.iterdir()):
            raise ValueError(
                f"{folder} exists and is not a folder of this kind (no {marker}): name another one"
            )
    elif (foreign := foreign_file(folder)) is not None:
        raise ValueError(
            f"{folder} holds {foreign}, which is not a file of this package: move it, or name another folder"
        )
