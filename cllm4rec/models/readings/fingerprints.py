"""SHA-256 of the files of a model."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def files_sha256(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 of the paths, relative to a folder, and the contents of files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()
