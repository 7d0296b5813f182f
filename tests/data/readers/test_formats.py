"""Files of unknown formats and files too large for the memory."""

import errno
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.readers import formats
from cllm4rec.data.readers.tables import read_events
from cllm4rec.files.memory import out_of_memory
from tests.support.tables import refused, written


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", b"PK\x03\x04and so on", "a zip archive or a spreadsheet"),
        ("e.tsv", b"BZh91AY", "compressed by bzip2"),
        ("e.csv", b"PAR1 and so on", "it is Parquet: let its name end in .parquet"),
        ("clicks.dat", b"1,2014-04-07T10:51:09.277Z,214536502,0\n", "give --separator ','"),
        ("e.txt", b"1::2::3::4\n", "rename it ratings.dat"),
        ("e.txt", b"\x00\x01\x02", "give --separator for a table of text"),
    ],
)
def test_a_file_of_an_unknown_kind_says_what_it_looks_like(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = written(tmp_path / name, content)
    assert words in refused(read_events, path)
    assert str(path) in refused(read_events, path)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (pl.exceptions.ComputeError("Cannot allocate memory (os error 12)"), True),
        (pl.exceptions.ComputeError("failed (os error 12)"), True),
        (pl.exceptions.ComputeError("Disk quota exceeded (os error 122)"), False),
        (pl.exceptions.ComputeError("Required key not available (os error 126)"), False),
        (OSError("Cannot allocate memory (os error 12)"), True),
        (OSError("Disk quota exceeded (os error 122)"), False),
        (OSError("No such file or directory (os error 2): /data/out of memory/e.csv"), False),
        (OSError(errno.EACCES, "Permission denied", "/data/out of memory/e.csv"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "/data/e.csv"), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (ValueError("damaged"), False),
    ],
)
def test_lack_of_memory_is_told_from_damage(error: Exception, is_memory: bool) -> None:
    assert out_of_memory(error) is is_memory
    try:
        raise RuntimeError("while reading") from error
    except RuntimeError as outer:
        assert out_of_memory(outer) is is_memory


@pytest.mark.parametrize("name", ["e.tsv", "e.jsonl", "e.parquet"])
def test_where_memory_runs_out_the_error_says_so(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    for reader in ("text_of", "read_json", "read_parquet"):
        monkeypatch.setattr(formats, reader, fails)
    path = written(tmp_path / name, "x")
    message = refused(read_events, path)
    assert f"{path}: there is not enough memory to read it" in message
    assert "cannot be read as" not in message
