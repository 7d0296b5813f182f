"""Locks: one process at a time writes a file or a folder."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from cllm4rec.files.temporary import LOCK, remove_unfinished, unfinished
from cllm4rec.messages import error_line, shorten

POLL_SECONDS = 0.02
LONGEST_NAME = 200  # bytes: temporary names are longer, and file systems take 255
SEALED = ("dataset.json", "model.json")  # files of folders whose content is listed in a manifest
_HELD: dict[Path, tuple[Path, list[Path]]] = {}  # path -> file of its lock, folders that were made for it
WAIT_SECONDS = 1.0  # a reader that recovers a folder holds its lock for a moment


@contextmanager
def locked(path: Path, wait: float = WAIT_SECONDS, name: Path | None = None) -> Iterator[None]:
    """Hold the lock of a file or a folder while it is written.

    The lock is the file `.NAME.cllm4rec.lock` in the parent folder, which is made if it is missing. The operating
    system releases the lock of a killed process, so a leftover file holds nobody up. A thread may take its own lock
    again.

    Args:
        path: the file or folder, links resolved.
        wait: seconds to wait for another process.
        name: what is written, for errors, if it is not `path`.

    Raises:
        ValueError: another process holds the lock, and the message names it; or the lock cannot be made.
    """
    check_parents(path)
    made = [folder for folder in path.parents if not folder.exists()]  # the nearest first
    file = _lock_file(path)
    lock = FileLock(
        file, is_singleton=True, fallback_to_soft=False, mode=0o666
    )  # other users may lock it too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait, poll_interval=POLL_SECONDS)
        _HELD.setdefault(path, (file, made))
        if lock.lock_counter == 1:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write_bytes(f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
    except Timeout:
        raise ValueError(
            f"{name or path} is being written by {_owner(file)}: wait until that has ended"
        ) from None
    except OSError as error:
        _release(lock, path, file)
        _remove_empty(made)
        raise ValueError(f"{path}: cannot be written: {error_line(error)}") from error
    try:
        yield
    finally:
        _release(lock, path, file)
        _remove_empty(made)


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK}")


def _release(lock: BaseFileLock, path: Path, file: Path) -> None:
    """Give a lock back, if it is held."""
    if lock.lock_counter == 1:
        _HELD.pop(path, None)
        file.unlink(missing_ok=True)  # still held: a process that waits for this file opens a new one
    lock.release()


def remove_leftovers(path: Path) -> None:
    """Remove the lock and the unfinished outputs that a killed process left of a file or folder."""
    if _lock_file(path).exists() or unfinished(path):
        with locked(path):
            remove_unfinished(path)


def release_all() -> None:
    """The process ends at once: remove the unfinished outputs whose locks it holds, and the locks."""
    for path, (file, made) in reversed(_HELD.items()):
        remove_unfinished(path)
        file.unlink(missing_ok=True)
        _remove_empty(made)


def _owner(file: Path) -> str:
    """The process that holds a lock."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # released meanwhile
        lines = []
    return shorten(lines[0]) if lines else "another process"


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were made for nothing."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # in use
            return


def check_parents(path: Path) -> None:
    """Raise ValueError if a file or folder cannot be written where it is.

    A parent is a file or may not be written, the name is too long, or the path is inside of a dataset or a model.
    """
    path = path.absolute()
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{path}: {above} is a file, not a folder: name another one")
    if not os.access(above, os.W_OK):
        raise ValueError(f"{path}: cannot be written: {above} may not be written by this user")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise ValueError(
            f"{path}: the name has {len(os.fsencode(path.name))} bytes: at most {LONGEST_NAME} can be written"
        )
    for folder in path.parents:
        if any((folder / marker).is_file() for marker in SEALED):
            raise ValueError(
                f"{path} is inside of {folder}, which would be damaged: name a path outside of it"
            )
