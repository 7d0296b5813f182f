"""The manifest of a folder: size and SHA-256 of each of its files, checked when the folder is read."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT, json_text, read_json

MANIFEST = "manifest.json"
# Weights are mapped, not read. The file is a length of 8 bytes, a JSON header, and the numbers.
WEIGHTS_SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 1 << 26
HIDDEN_FILE = re.compile(r"(^|/)\.")
SYSTEM_FILE = re.compile(r"(^|/)(\.DS_Store|\._|\.nfs|\.ipynb_checkpoints/|Thumbs\.db$|desktop\.ini$)")
PACKAGE_FILE = re.compile(
    r"(dataset|model|manifest)\.json|(events|users|items)\.parquet|model\.safetensors"
    r"|part-\d{5,}\.parquet|(adapter|backbone|sequential)/.*"
)


class ForeignFileError(ValueError):
    """A folder holds a file that is not one of this package."""


@dataclass(frozen=True)
class FileRecord:
    """Entry of a file in a manifest.

    Attributes:
        size: in bytes.
        sha256: of the content, in hexadecimal.
        header_sha256: of the length and header, if the file holds weights.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    size: int
    sha256: str
    header_sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The records of a folder's files, by their name relative to it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    files: dict[str, FileRecord] = field(default_factory=dict)


def file_record(file: Path) -> FileRecord:
    """Size and hashes of a file, which is read whole.

    Raises:
        ValueError: the header of a file of weights is too large.
    """
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    header_sha256 = _header_sha256(file) if file.suffix == WEIGHTS_SUFFIX else None
    return FileRecord(file.stat().st_size, digest, header_sha256)


def _header_sha256(file: Path) -> str:
    with file.open("rb") as opened:
        length = opened.read(8)
        n_bytes = int.from_bytes(length, "little")
        if n_bytes > MAX_HEADER_BYTES:
            raise ValueError(
                f"{file.name} has a header of {n_bytes:,} bytes: at most {MAX_HEADER_BYTES:,} are read"
            )
        return hashlib.sha256(length + opened.read(n_bytes)).hexdigest()


def write_manifest(folder: Path, known_records: Mapping[str, FileRecord] | None = None) -> None:
    """Write the manifest of a new folder.

    Args:
        folder: with all of its other files.
        known_records: records of files that need not be hashed again, by name.
    """
    known_records = known_records or {}
    records = {name: known_records.get(name) or file_record(folder / name) for name in _content_files(folder)}
    content = {"files": {name: asdict(record) for name, record in records.items()}}
    (folder / MANIFEST).write_text(json_text(content), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ValueError: it is missing or damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"no {MANIFEST}: an earlier version wrote the folder, or the file was removed")
    manifest: Manifest = read_json(folder / MANIFEST, Manifest)
    return manifest


def foreign_file(folder: Path) -> str | None:
    """Relative name of a file that is not one of this package, or None.

    Files that systems and editors leave are passed over. Without a readable manifest, names decide.
    """
    try:
        listed = {*read_manifest(folder).files, MANIFEST}
    except ValueError:
        listed = {name for name in _all_files(folder) if PACKAGE_FILE.fullmatch(name)}
    foreign = (name for name in _all_files(folder) if name not in listed and not SYSTEM_FILE.search(name))
    return next(foreign, None)


def check_manifest(folder: Path, whole: bool) -> Manifest:
    """Compare the files of a folder with its manifest.

    Args:
        folder: the folder.
        whole: whether weights are read whole. Otherwise only their size and header are compared. All other
            files are always read whole.

    Returns:
        The manifest.

    Raises:
        ForeignFileError: there is a file that the manifest does not list.
        ValueError: a file is missing or differs; the message names it.
    """
    manifest = read_manifest(folder)
    names = set(_content_files(folder))
    for name in sorted(manifest.files.keys() - names):
        raise ValueError(f"{name} is missing")
    for name in sorted(names - manifest.files.keys()):
        raise ForeignFileError(f"it holds {name}, which is not listed in {MANIFEST}: move it")
    for name, record in manifest.files.items():
        file = folder / name
        size = file.stat().st_size
        if size != record.size:
            raise ValueError(f"{name} has {size:,} bytes, not {record.size:,} as {MANIFEST} says")
        if file.suffix == WEIGHTS_SUFFIX and not whole:
            same = _header_sha256(file) == record.header_sha256
        else:
            same = file_record(file) == record
        if not same:
            raise ValueError(f"{name} differs from its SHA-256 in {MANIFEST}")
    return manifest


def _content_files(folder: Path) -> list[str]:
    """Relative names of a folder's files, without the manifest, hidden files and files of hidden folders."""
    return [name for name in _all_files(folder) if name != MANIFEST and not HIDDEN_FILE.search(name)]


def _all_files(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if not file.is_dir()]
