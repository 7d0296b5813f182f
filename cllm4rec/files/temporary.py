"""Names of files and folders that are being written, and removal of those that were left."""

import glob
import os
import shutil
import uuid
from pathlib import Path

UNFINISHED = ".cllm4rec-"  # in the names of files and folders that are being written
LOCK = ".cllm4rec.lock"  # ending of the name of a lock
OLD = ".old"  # ending of a folder that was moved away and not yet replaced


def unfinished_name(path: Path) -> Path:
    """A new name beside `path` for a file or folder that is being written."""
    return path.with_name(f".{path.name}{UNFINISHED}{uuid.uuid4().hex[:12]}")


def unfinished(path: Path) -> list[Path]:
    """Unfinished files and folders of `path`: of the process that writes it, or of killed ones."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}{UNFINISHED}*"))


def is_temporary(path: Path) -> bool:
    """Whether a name is that of a lock, or of a file or folder that is being written."""
    return path.name.startswith(".") and (UNFINISHED in path.name or path.name.endswith(LOCK))


def cut_off(path: Path) -> bool:
    """Whether a replacement of a folder was cut off between its two renames."""
    return not path.exists() and any(left.name.endswith(OLD) for left in unfinished(path))


def remove_unfinished(path: Path) -> None:
    """Finish a replacement that was cut off, and remove the unfinished files and folders of `path`.

    The lock of `path` has to be held: they belong to killed processes, or to this one.
    """
    if cut_off(path):
        old = next(left for left in unfinished(path) if left.name.endswith(OLD))
        new = old.with_name(old.name.removesuffix(OLD))
        os.rename(new if new.exists() else old, path)  # the old one is moved away when the new one is whole
    for left in unfinished(path):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
