"""Tables in several files of one folder."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec.data.readers.tables import read_events
from tests.support.tables import refused, written


def test_files_of_parquet_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "events.parquet"
    folder.mkdir()
    pl.DataFrame(
        {"user_id": [1], "item_id": [8], "rating": [4]}, schema_overrides={"user_id": pl.Int32}
    ).write_parquet(folder / "part-00001.parquet")
    pl.DataFrame({"user_id": [2**40], "item_id": [9], "rating": [4.5]}).write_parquet(
        folder / "part-00000.parquet"
    )
    pl.DataFrame({"user_id": [None], "item_id": [None], "rating": [None]}).clear().write_parquet(
        folder / "part-00002.parquet"
    )
    for other in ("_SUCCESS", "_metadata", ".part-00000.parquet.crc", "part-00000.crc", ".DS_Store"):
        (folder / other).write_bytes(b"no table")
    assert read_events(folder).rows() == [(2**40, 9, 4.5), (1, 8, 4.0)]
    pl.DataFrame({"user_id": [5], "item_id": [6], "rating": [float("inf")]}).write_parquet(
        folder / "part-00003.parquet"
    )
    assert f"{folder}, part-00003.parquet, row 1, column rating: inf" in refused(read_events, folder)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": ["x"], "item_id": [1]}, "column user_id is Int64 in a.parquet and String in b.parquet"),
        ({"user_id": [1]}, "b.parquet has no column item_id, and a.parquet has"),
        (
            {"user_id": [1], "item_id": [1], "rating": [1]},
            "a.parquet has no column rating, and b.parquet has",
        ),
        ({"user_id": [1.5], "item_id": [1]}, "column user_id is Int64 in a.parquet and Float64 in b.parquet"),
    ],
)
def test_files_whose_columns_differ_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], words: str
) -> None:
    pl.DataFrame({"user_id": [2**60], "item_id": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(columns).write_parquet(tmp_path / "b.parquet")
    assert f"{tmp_path}: {words}" in refused(read_events, tmp_path)


def test_files_of_text_and_json(tmp_path: Path) -> None:
    for name in ("csv", "json"):
        (tmp_path / name).mkdir()
    for number, content in enumerate(
        ("user_id,item_id\nu,a\n", "", "user_id,item_id\n", "user_id,item_id\nv,b\n")
    ):
        written(tmp_path / "csv" / f"part-{number:05d}-c000.csv", content)
    assert read_events(tmp_path / "csv").rows() == [("u", "a"), ("v", "b")]
    written(tmp_path / "csv" / "part-00009.csv", "user_id,item_id,rating\n1,a,3\n")
    assert "part-00000-c000.csv has no column rating" in refused(read_events, tmp_path / "csv")
    written(tmp_path / "json" / "part-0.json.gz", '{"user_id": "u", "item_id": 1}\n')
    written(tmp_path / "json" / "part-1.json.gz", '{"user_id": "v", "item_id": "x", "rating": 2}\n')
    assert read_events(tmp_path / "json").rows() == [("u", "1", None), ("v", "x", 2.0)]
    bad = written(tmp_path / "json" / "part-2.json.gz", '\n{"user_id": ""}\n')
    assert "part-2.json.gz, line 2, column user_id: ''" in refused(read_events, bad.parent)


def test_folders_that_hold_no_table_are_refused(tmp_path: Path) -> None:
    for name in ("empty", "marked", "mixed"):
        (tmp_path / name).mkdir()
    written(tmp_path / "marked" / "_SUCCESS", "")
    for name in ("empty", "marked"):
        assert "the folder holds no table" in refused(read_events, tmp_path / name)
    written(tmp_path / "mixed" / "ratings.dat", "1::2::3::4\n")
    written(tmp_path / "mixed" / "README", "x")
    assert "its files are not of one table (README and ratings.dat)" in refused(
        read_events, tmp_path / "mixed"
    )
    (tmp_path / "hive" / "year=2020").mkdir(parents=True)
    assert "year=2020 is not a file" in refused(read_events, tmp_path / "hive")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    assert "a Delta table" in refused(read_events, tmp_path / "delta")
