"""The manifest of a folder: size and SHA-256 of each of its files, checked when the folder is read."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT, json_text, read_json

MANIFEST = "manifest.json"
WEIGHTS = ".safetensors"  # files that are mapped, not read: a length of 8 bytes, a JSON header, the numbers
LARGEST_HEADER = 1 << 26  # bytes
HIDDEN = re.compile(r"(^|/)\.")
JUNK = re.compile(r"(^|/)(\.DS_Store|\._|\.nfs|\.ipynb_checkpoints/|Thumbs\.db$|desktop\.ini$)")
OURS = re.compile(  # names of files that this package writes
    r"(dataset|model|manifest)\.json|(events|users|items)\.parquet|model\.safetensors|part-\d{5,}\.parquet|(backbone|sequential)/.*"
)


class ForeignFileError(ValueError):
    """A folder holds a file that is not one of this package."""


@dataclass(frozen=True)
class FileRecord:
    """What a manifest says of a file.

    Attributes:
        size: in bytes.
        sha256: of the content, in hexadecimal.
        header_sha256: of the length and header, where it holds weights.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    size: int
    sha256: str
    header_sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Name of each file of a folder, relative to it, -> its record."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    files: dict[str, FileRecord] = field(default_factory=dict)


def file_record(file: Path) -> FileRecord:
    """Size and hashes of a file, which is read whole."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return FileRecord(file.stat().st_size, digest, _header_sha256(file) if file.suffix == WEIGHTS else None)


def _header_sha256(file: Path) -> str:
    with file.open("rb") as opened:
        length = opened.read(8)
        n = int.from_bytes(length, "little")
        if n > LARGEST_HEADER:
            raise ValueError(f"{file.name} has a header of {n:,} bytes: at most {LARGEST_HEADER:,} are read")
        return hashlib.sha256(length + opened.read(n)).hexdigest()


def write_manifest(folder: Path, known: Mapping[str, FileRecord] | None = None) -> None:
    """Write the manifest of a new folder.

    Args:
        folder: with all of its other files.
        known: records of files that need not be read again, by name.
    """
    records = {name: asdict((known or {}).get(name) or file_record(folder / name)) for name in _files(folder)}
    (folder / MANIFEST).write_text(json_text({"files": records}), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"no {MANIFEST}: an earlier version wrote the folder, or the file was removed")
    manifest: Manifest = read_json(folder / MANIFEST, Manifest)
    return manifest


def foreign_file(folder: Path) -> str | None:
    """A file of a folder that is not one of this package, by relative name; None if there is none.

    Files that systems and editors leave are passed over. Without a manifest that can be read, names decide.
    """
    try:
        listed = {*read_manifest(folder).files, MANIFEST}
    except ValueError:
        listed = {name for name in _all_files(folder) if OURS.fullmatch(name)}
    return next((name for name in _all_files(folder) if name not in listed and not JUNK.search(name)), None)


def check_manifest(folder: Path, whole: bool) -> Manifest:
    """Compare the files of a folder with its manifest.

    Args:
        folder: the folder.
        whole: whether weights are read whole. If not, their size and header are compared; all other files always
            are read whole.

    Returns:
        The manifest.

    Raises:
        ForeignFileError: there is a file that the manifest does not list.
        ValueError: a file is missing or differs; the message names it.
    """
    manifest = read_manifest(folder)
    found = set(_files(folder))
    for name in sorted(manifest.files.keys() - found):
        raise ValueError(f"{name} is missing")
    for name in sorted(found - manifest.files.keys()):
        raise ForeignFileError(f"it holds {name}, which is not listed in {MANIFEST}: move it")
    for name, record in manifest.files.items():
        file = folder / name
        if file.stat().st_size != record.size:
            raise ValueError(
                f"{name} has {file.stat().st_size:,} bytes, not {record.size:,} as {MANIFEST} says"
            )
        if file.suffix == WEIGHTS and not whole:
            same = _header_sha256(file) == record.header_sha256
        else:
            same = file_record(file) == record
        if not same:
            raise ValueError(f"{name} differs from its SHA-256 in {MANIFEST}")
    return manifest


def _files(folder: Path) -> list[str]:
    """The files of a folder by relative name, without the manifest, hidden ones and those of hidden folders."""
    return [name for name in _all_files(folder) if name != MANIFEST and not HIDDEN.search(name)]


def _all_files(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if not file.is_dir()]
