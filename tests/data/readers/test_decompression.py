"""Limits on the size of unpacked files."""

import gzip
import io
import random
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.readers import decompression
from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.tables import read_events
from tests.support.event_files import prepare_dataset
from tests.support.tables import refused, written


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gibibyte is 64 KiB, so that limits are met by small files."""
    monkeypatch.setattr(decompression, "BYTES_PER_GIB", 2**16)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", ["e.tsv.gz", "e.jsonl.gz", "e.json.gz", "members.tsv.gz"])
def test_the_unpacked_size_of_gzip_is_limited(tmp_path: Path, name: str) -> None:
    n = 100_000
    content = "user_id\titem_id\n" + "u\ta\n" * n if "tsv" in name else '{"user_id":"u","item_id":"a"}\n' * n
    if name == "e.json.gz":
        content = "[" + ",".join(content.split()) + "]"
    path = written(tmp_path / name, content)
    if name == "members.tsv.gz":
        path.write_bytes(
            b"".join(gzip.compress(content[at : at + 5000].encode()) for at in range(0, len(content), 5000))
        )
        path.write_bytes(gzip.compress(path.read_bytes()[:0]) + path.read_bytes())
    limit = TableFile(path, max_unpacked_gib=2)
    assert f"{path}: it unpacks to more than " in refused(read_events, limit)
    assert "`max_unpacked_gib`" in refused(read_events, limit)
    assert len(read_events(TableFile(path, max_unpacked_gib=100))) == n


@pytest.mark.usefixtures("small_limits")
def test_the_unpacked_size_of_parquet_is_limited_in_rows_and_bytes(tmp_path: Path) -> None:
    rows, texts = tmp_path / "rows.parquet", tmp_path / "texts.parquet"
    pl.DataFrame({"user_id": [1], "item_id": [2]}).select(
        pl.all().repeat_by(100_000).explode()
    ).write_parquet(rows)
    pl.DataFrame({"user_id": ["x" * 2**20], "item_id": ["y"], "other": ["z" * 2**24]}).write_parquet(texts)
    for path, n in ((rows, 100_000), (texts, 1)):
        assert f"{path}: it unpacks to more than 1 GiB" in refused(
            read_events, TableFile(path, max_unpacked_gib=1)
        )
        assert len(read_events(TableFile(path, max_unpacked_gib=40))) == n  # `other` is not read
        (tmp_path / "z.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert "it unpacks to more than" in refused(
            read_events, TableFile(tmp_path / "z.parquet.gz", max_unpacked_gib=1)
        )


@pytest.mark.usefixtures("small_limits")
def test_without_an_option_the_limit_is_a_hundred_times_the_size(tmp_path: Path) -> None:
    header, row = "user_id\titem_id\n", "u\ta\n"
    assert len(read_events(written(tmp_path / "small.tsv.gz", header + row * 16_000))) == 16_000
    assert "it unpacks to more than 1 GiB" in refused(
        read_events, written(tmp_path / "equal.tsv.gz", header + row * 17_000)
    )
    ordinary = "".join(f"u{i}\ti{i * 7919 % 10_007}\n" for i in range(17_000))
    assert len(read_events(written(tmp_path / "ordinary.tsv.gz", header + ordinary))) == 17_000


@pytest.mark.usefixtures("small_limits")
def test_the_files_of_a_folder_share_a_limit(tmp_path: Path) -> None:
    for number in range(4):
        written(tmp_path / f"part-{number}.tsv.gz", "user_id\titem_id\n" + "u\ta\n" * 6000)
    assert len(read_events(TableFile(tmp_path / "part-0.tsv.gz", max_unpacked_gib=1))) == 6000
    assert "part-2.tsv.gz: it unpacks to more than 1 GiB" in refused(
        read_events, TableFile(tmp_path, max_unpacked_gib=1)
    )


def test_the_limit_is_a_number_above_zero(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv.gz", "user_id,item_id\nu,a\n")
    for limit in (0.0, -1.0, float("nan"), float("inf")):
        assert "expected a number above 0" in refused(read_events, TableFile(path, max_unpacked_gib=limit))
    flags = ["--interactions", str(path), "--max-unpacked-gib", "1e-9"]
    assert "it unpacks to more than" in refused(prepare_dataset, tmp_path, *flags)


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.tsv", "e.jsonl", "e.jsonl.gz"])
def test_blank_lines_without_end_are_no_table(tmp_path: Path, name: str) -> None:
    row = (
        '{"user_id": 1, "item_id": 2}'
        if "json" in name
        else "user_id,item_id\n1,2".replace(",", "," if "csv" in name else "\t")
    )
    few, many = (
        f"{row}\n{end * n}{row[-3:] if 'json' not in name else row}\n"
        for end, n in (("\n", 1000), ("\r\n", 70_000))
    )
    assert len(read_events(written(tmp_path / name, few))) == 2
    line = 2 if "json" in name else 3
    assert f"line {line}: more than 65,536 blank lines follow" in refused(
        read_events, written(tmp_path / name, many)
    )


def test_a_first_line_without_end_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "MAX_RECORD_BYTES", 16 * decompression.BYTES_AT_ONCE)
    for filler in (b"\0", b"\n", b"x"):
        path = written(tmp_path / "e.tsv.gz", filler * 2**25)
        assert "no line of text ends in its first 16 MiB" in refused(read_events, path)
    path = written(tmp_path / "e.jsonl.gz", b"\0" * 2**25)
    assert "a line of more than 16 MiB" in refused(read_events, path)


def test_lines_are_numbered_alike_wherever_a_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(300):
        generator = random.Random(seed)
        pieces = generator.choices(
            [b"{a}", b"{bc d}", b"\n", b"\r\n", b" ", b"\n\n", b"\n"], k=generator.randint(0, 30)
        )
        content = b"".join(pieces)
        monkeypatch.setattr(decompression, "BYTES_AT_ONCE", generator.choice([1, 2, 3, 7, 1000]))
        read = [
            (number, line.strip()) for number, line in decompression.nonblank_lines(io.BytesIO(content), "f")
        ]
        lines = enumerate(content.split(b"\n"), 1)
        assert [pair for pair in read if pair[1]] == [
            (number, line.strip()) for number, line in lines if line.strip()
        ]


@pytest.mark.parametrize(
    ("tail", "words"), [(b"more", "bytes after the compressed data are not gzip"), (b"\0" * 512, "")]
)
def test_bytes_after_the_compressed_ones(tmp_path: Path, tail: bytes, words: str) -> None:
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(b"user_id,item_id\nu,a\n") + tail)
    if words:
        assert words in refused(read_events, path)
    else:
        assert read_events(path).rows() == [("u", "a")]
