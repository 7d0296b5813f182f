"""Locks: one process at a time writes a file or a folder."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from cllm4rec.files.temporary import LOCK_SUFFIX, remove_temporary, temporary_paths
from cllm4rec.messages import error_line, shorten

POLL_SECONDS = 0.02
LOCK_WAIT_SECONDS = 1.0  # a reader that recovers a folder holds its lock for a moment
MAX_NAME_BYTES = 200  # temporary names are longer, and file systems allow 255
MANIFEST_MARKERS = ("dataset.json", "model.json")  # of folders whose files are listed in a manifest
_HELD_LOCKS: dict[Path, tuple[Path, list[Path]]] = {}  # path -> lock file, parent folders made for it


@contextmanager
def locked(path: Path, wait: float = LOCK_WAIT_SECONDS, name: Path | None = None) -> Iterator[None]:
    """Hold the lock of a file or a folder while it is written.

    The lock is the file `.NAME.cllm4rec.lock` in the parent folder, which is made if it is missing. The
    operating system releases the lock of a killed process, so that a leftover file blocks nobody. A thread
    may acquire again a lock that it already holds.

    Args:
        path: the file or folder, links resolved.
        wait: seconds to wait for another process.
        name: the path named in errors, if it is not `path`.

    Raises:
        ValueError: another process holds the lock, and the message names it; or the lock cannot be made.
    """
    check_parents(path)
    new_folders = [folder for folder in path.parents if not folder.exists()]  # the nearest first
    file = _lock_file(path)
    # the mode lets other users lock it too
    lock = FileLock(file, is_singleton=True, fallback_to_soft=False, mode=0o666)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait, poll_interval=POLL_SECONDS)
        _HELD_LOCKS.setdefault(path, (file, new_folders))
        if lock.lock_counter == 1:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write_bytes(f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
    except Timeout:
        if not file.exists():
            raise ValueError(
                f"{name or path}: cannot be written: no file can be made in {path.parent}"
            ) from None
        raise ValueError(
            f"{name or path} is being written by {_holder(file)}: wait until that has ended"
        ) from None
    except OSError as error:
        _release(lock, path, file)
        _remove_empty(new_folders)
        raise ValueError(f"{path}: cannot be written: {error_line(error)}") from error
    try:
        yield
    finally:
        _release(lock, path, file)
        _remove_empty(new_folders)


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK_SUFFIX}")


def _release(lock: BaseFileLock, path: Path, file: Path) -> None:
    """Release a lock if it is held."""
    if lock.lock_counter == 1:
        _HELD_LOCKS.pop(path, None)
        file.unlink(missing_ok=True)  # still held: a process that waits for this file opens a new one
    lock.release()


def remove_leftovers(path: Path) -> None:
    """Remove the lock and the temporary files that a killed process left of a file or folder."""
    if _lock_file(path).exists() or temporary_paths(path):
        with locked(path):
            remove_temporary(path)


def release_all() -> None:
    """Remove the locks that this process holds and the temporary files of their paths, before it exits."""
    for path, (file, new_folders) in reversed(_HELD_LOCKS.items()):
        remove_temporary(path)
        file.unlink(missing_ok=True)
        _remove_empty(new_folders)


def _holder(file: Path) -> str:
    """Description of the process that holds a lock."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # released meanwhile
        lines = []
    return shorten(lines[0]) if lines else "another process"


def _remove_empty(folders: list[Path]) -> None:
    """Remove new parent folders that stayed empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # in use
            return


def check_parents(path: Path) -> None:
    """Refuse a path at which no file or folder can be written.

    Raises:
        ValueError: a parent is a file or not writable, the name is too long, or the path is inside of a
            dataset or a model.
    """
    path = path.absolute()
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir():
        raise ValueError(f"{path}: {parent} is a file, not a folder: name another one")
    if not os.access(parent, os.W_OK):
        raise ValueError(f"{path}: cannot be written: {parent} may not be written by this user")
    n_bytes = len(os.fsencode(path.name))
    if n_bytes > MAX_NAME_BYTES:
        raise ValueError(f"{path}: the name has {n_bytes} bytes: at most {MAX_NAME_BYTES} can be written")
    for folder in path.parents:
        if any((folder / marker).is_file() for marker in MANIFEST_MARKERS):
            raise ValueError(
                f"{path} is inside of {folder}, which would be damaged: name a path outside of it"
            )
