"""Names of temporary files and folders, and their removal."""

import glob
import os
import shutil
import uuid
from pathlib import Path

TEMPORARY = ".cllm4rec-"  # in the names of temporary files and folders
LOCK_SUFFIX = ".cllm4rec.lock"
OLD_SUFFIX = ".old"  # of a folder that was renamed and not yet replaced


def temporary_path(path: Path) -> Path:
    """A unique name in the folder of `path`, under which a new version of `path` is written."""
    return path.with_name(f".{path.name}{TEMPORARY}{uuid.uuid4().hex[:12]}")


def temporary_paths(path: Path) -> list[Path]:
    """All temporary files and folders of `path`: of the process that writes it, or of killed ones."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}{TEMPORARY}*"))


def is_temporary(path: Path) -> bool:
    """Whether a name is that of a lock, or of a temporary file or folder."""
    return path.name.startswith(".") and (TEMPORARY in path.name or path.name.endswith(LOCK_SUFFIX))


def replacement_interrupted(path: Path) -> bool:
    """Whether a process was killed between the two renames that replace a folder."""
    return not path.exists() and any(file.name.endswith(OLD_SUFFIX) for file in temporary_paths(path))


def remove_temporary(path: Path) -> None:
    """Finish an interrupted replacement and remove the temporary files and folders of `path`.

    The caller holds the lock of `path`: the files belong to this process or to killed ones.
    """
    if replacement_interrupted(path):
        old = next(file for file in temporary_paths(path) if file.name.endswith(OLD_SUFFIX))
        new = old.with_name(old.name.removesuffix(OLD_SUFFIX))
        os.rename(new if new.exists() else old, path)  # the old one is renamed only when the new one is whole
    for leftover in temporary_paths(path):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
