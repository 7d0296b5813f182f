"""The published files of a data set, in a folder or a zip file."""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cllm4rec.messages import error_line

MAX_UNPACKED_BYTES = 1 << 30  # of a file in a zip
SUFFIXES = ("", ".gz")  # files are published plain or as gzip


@contextmanager
def open_original(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folder of the published files: `path` itself, or a temporary one if `path` is a zip file.

    Args:
        path: folder, or zip file.
        names: the files that are unpacked from a zip file, where it holds them.

    Raises:
        ValueError: there is no such path, it is another kind of file, or the zip file is damaged.
    """
    if path.is_dir():
        yield path
        return
    wanted = " and ".join(names)
    if not path.exists():
        raise ValueError(f"{path} does not exist: name the folder or the zip file that holds {wanted}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no folder and no zip file: name the one that holds {wanted}")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            _unpack(path, names, Path(temporary))
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise ValueError(f"{path}: cannot be unpacked: {error_line(error)}") from error
        yield Path(temporary)


def _unpack(path: Path, names: Sequence[str], folder: Path) -> None:
    """Unpack the named files from any folder of a zip file."""
    wanted = {name + suffix for name in names for suffix in SUFFIXES}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename).name
            if name not in wanted:
                continue
            if (folder / name).exists():
                raise ValueError(f"{path} holds several files {name}: name the zip file as published")
            if member.file_size > MAX_UNPACKED_BYTES:
                raise ValueError(f"{path}: {name} would have {member.file_size:,} bytes: it is no such file")
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def find_file(folder: Path, name: str) -> Path | None:
    """The file of a name in a folder, plain or as gzip; None if there is none."""
    return next(
        (folder / (name + suffix) for suffix in SUFFIXES if (folder / (name + suffix)).is_file()), None
    )
