"""Parquet files: columns, row numbers in errors, compression, damage."""

import gzip
import random
from pathlib import Path

import polars as pl

from cllm4rec.data.readers.formats import read_raw
from cllm4rec.data.readers.tables import read_events, read_items
from tests.support.tables import refused


def test_parquet_takes_only_what_is_needed_and_names_rows(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user_id": [1, 2], "item_id": [1, 2], "rating": [4.0, float("inf")], "other": [{"a": 1}, None]}
    )
    frame.write_parquet(tmp_path / "e.parquet")
    assert f"{tmp_path / 'e.parquet'}, row 2, column rating: inf" in refused(
        read_events, tmp_path / "e.parquet"
    )
    assert read_raw(tmp_path / "e.parquet", {"user_id": None}).frame.columns == ["user_id"]
    nested = pl.DataFrame({"item_id": [1], "categories": [[["A"], ["B", "C"]]], "year": [1999.0]})
    nested.write_parquet(tmp_path / "i.parquet")
    assert read_items(tmp_path / "i.parquet").rows() == [(1, "A, B, C", "1999")]


def test_parquet_may_be_compressed_once_more(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"]})
    frame.write_parquet(tmp_path / "e.parquet")
    (tmp_path / "e.parquet.gz").write_bytes(gzip.compress((tmp_path / "e.parquet").read_bytes()))
    assert read_events(tmp_path / "e.parquet.gz").equals(frame)


def test_a_footer_of_parquet_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame({"user_id": ["u", "v"] * 50, "item_id": range(100)}).write_parquet(path)
    whole = path.read_bytes()
    for seed in range(200):
        generator, data = random.Random(seed), bytearray(whole)
        data[generator.randrange(len(data) - 200, len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            read_events(path)
        except ValueError as error:
            assert str(path) in str(error)
            assert str(error).isprintable()
