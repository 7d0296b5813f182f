"""Files of unknown formats and files too large for the memory."""

import errno
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.readers import formats
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import SourceFile, TableFile
from cllm4rec.data.readers.tables import read_events
from cllm4rec.files.memory import out_of_memory
from tests.support.tables import refused, written


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", b"PK\x03\x04and so on", "a zip archive or a spreadsheet"),
        ("e.tsv", b"BZh91AY", "compressed by bzip2"),
        ("e.csv", b"PAR1 and so on", "it is Parquet: let its name end in .parquet"),
        ("clicks.dat", b"1,2014-04-07T10:51:09.277Z,214536502,0\n", "give `separator` ','"),
        ("e.txt", b"1::2::3::4\n", "rename it ratings.dat"),
        ("e.txt", b"\x00\x01\x02", "give `separator` for a text table"),
    ],
)
def test_a_file_of_an_unknown_kind_says_what_it_looks_like(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = written(tmp_path / name, content)
    assert words in refused(read_events, path)
    assert str(path) in refused(read_events, path)


def test_a_new_format_is_a_reader_and_a_line_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_pairs(file: SourceFile) -> RawTable:
        pairs = [line.split("=") for line in file.text.decode().split()]
        frame = pl.DataFrame(pairs, ["user_id", "item_id"], orient="row")
        return RawTable(frame, file.name, frame.columns, lambda row: f"line {row + 1}")

    path = written(tmp_path / "e.pairs.gz", "u=a\nv=b\n")
    assert "unknown file format" in refused(read_events, path)
    entry = formats.Format(("pairs",), formats.Content.TEXT, None, read_pairs)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, entry))
    assert read_events(path).rows() == [("u", "a"), ("v", "b")]
    assert "line 2, column item_id: ''" in refused(read_events, written(path, "u=a\nv=\n"))
    assert "name it .pairs, .tsv" in refused(read_events, written(tmp_path / "e.xlsx", "x"))


def test_ratings_of_netflix_without_a_header_are_no_known_format(tmp_path: Path) -> None:
    path = written(tmp_path / "combined_data_1.txt", "1:\n1488844,3,2005-09-06\n")
    assert len(read_events(path)) == 1
    assert "unknown file format" in refused(read_events, TableFile(path, header=False))


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

    monkeypatch.setattr(formats, "FORMATS", [replace(entry, read=fails) for entry in formats.FORMATS])
    path = written(tmp_path / name, "x")
    message = refused(read_events, path)
    assert f"{path}: there is not enough memory to read it" in message
    assert "cannot be read as" not in message
