"""Errors in reading folders of this package, each in one line: damage, another version, lack of memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from safetensors import SafetensorError

from cllm4rec.files.manifest import ForeignFileError
from cllm4rec.files.memory import NO_MEMORY, out_of_memory
from cllm4rec.files.schema import FormatVersionError
from cllm4rec.messages import error_line

READ_ERRORS = (
    MemoryError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    SafetensorError,
)


@contextmanager
def reading(folder: Path, remedy: str) -> Iterator[None]:
    """Turn any error in reading a folder or file of this package into one line.

    Args:
        folder: the folder or file.
        remedy: what to do if it is damaged.

    Raises:
        ValueError: it is damaged, another version wrote it, or memory ran out.
    """
    try:
        yield
    except FormatVersionError as error:
        raise ValueError(f"{folder}: {error}: {remedy}") from error
    except ForeignFileError as error:
        raise ValueError(f"{folder}: {error}") from error
    except READ_ERRORS as error:
        if out_of_memory(error):
            raise ValueError(f"{folder}: {NO_MEMORY}") from error
        raise ValueError(f"{folder} is damaged ({error_line(error)}): {remedy}") from error
