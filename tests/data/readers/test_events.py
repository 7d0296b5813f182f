"""Tables of events: each format gives the same table, with ids as text and times in seconds."""

import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.tables import read_events, read_items
from tests.support.tables import json_lines, written

EVENT_COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
ROWS = [("007", "a b", 4.0, 1700000000), ("8", "x", 3.5, 1700000001)]


@pytest.mark.parametrize(
    "name", ["e.tsv", "e.csv", "e.jsonl", "e.json", "e.tsv.gz", "e.csv.gz", "e.jsonl.gz", "E.TSV"]
)
def test_every_kind_of_text_file_reads_alike(tmp_path: Path, name: str) -> None:
    kind = name.lower().removesuffix(".gz").rsplit(".")[-1]
    if kind in ("jsonl", "json"):
        content = json_lines(*(dict(zip(EVENT_COLUMNS, row, strict=True)) for row in ROWS))
    else:
        separator = "," if kind == "csv" else "\t"
        content = "".join(separator.join(map(str, row)) + "\n" for row in [EVENT_COLUMNS, *ROWS])
    frame = read_events(written(tmp_path / name, content))
    assert frame.rows() == ROWS
    assert frame.dtypes == [pl.String, pl.String, pl.Float64, pl.Int64]


def test_text_tables_keep_ids_as_text(tmp_path: Path) -> None:
    frame = read_events(written(tmp_path / "e.csv", "user_id,item_id\n007,1e3\n7,1000\n"))
    assert frame.rows() == [("007", "1e3"), ("7", "1000")]
    dataset = Dataset.from_frame(frame)
    assert (dataset.n_users, dataset.n_items) == (2, 2)
    assert dataset.user_ids.index(["007"]).tolist() != dataset.user_ids.index(["7"]).tolist()


def test_parquet_integer_ids_keep_their_type_through_folder_and_look_up(tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": [7, 7, 11, 900], "item_id": [100, 2, 2, 30], "rating": [4, 5, 3, 4]})
    table.write_parquet(tmp_path / "e.parquet")
    pl.DataFrame({"item_id": [2, 30], "title": ["Two", "Thirty"]}).write_parquet(tmp_path / "i.parquet")
    dataset = Dataset.from_frame(read_events(tmp_path / "e.parquet"), read_items(tmp_path / "i.parquet"))
    dataset.save(tmp_path / "data")
    for copy in (dataset, Dataset.load(tmp_path / "data")):
        assert copy.users.schema["user_id"] == pl.Int64
        assert copy.items.schema["item_id"] == pl.Int64
        assert sorted(copy.user_ids.names(np.arange(3)).to_list()) == [7, 11, 900]
        assert copy.user_ids.index([900, "900"]).tolist() == copy.user_ids.index(["900", 900]).tolist()
        titles = dict(zip(copy.items["item_id"].to_list(), copy.items["title"].to_list(), strict=True))
        assert titles == {2: "Two", 30: "Thirty", 100: ""}


def test_csv_understands_quotes(tmp_path: Path) -> None:
    rows = '1,"a,b","she said ""good"",\nthen left"\n2,c,""\n'
    path = written(tmp_path / "e.csv", "user_id,item_id,review\n" + rows)
    assert read_events(path).rows() == [("1", "a,b", 'she said "good",\nthen left'), ("2", "c", "")]


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "e.tsv", 'user_id\titem_id\treview\n1\t"a"\t"good, ""very\n2\tc\t"\n')
    assert read_events(path).rows() == [("1", '"a"', '"good, ""very'), ("2", "c", '"')]


def test_windows_line_ends_and_a_byte_order_mark_do_not_get_into_the_cells(tmp_path: Path) -> None:
    windows = written(tmp_path / "a.tsv", "user_id\titem_id\r\n1\tx\r\n")
    marked = written(tmp_path / "b.csv", b"\xef\xbb\xbfuser_id,item_id\n1,x\n")
    assert read_events(windows).rows() == read_events(marked).rows() == [("1", "x")]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("userId,movieId,rating,timestamp", EVENT_COLUMNS),  # MovieLens
        ("reviewerID,asin,overall,reviewText,unixReviewTime", [*EVENT_COLUMNS, "review_text"]),  # Amazon
        ("user_id,parent_asin,asin,rating,text,timestamp", [*EVENT_COLUMNS, "review_text"]),
        ("customer_id,product_id,stars,date,other", EVENT_COLUMNS),
    ],
)
def test_columns_are_found_under_their_usual_names(tmp_path: Path, header: str, columns: list[str]) -> None:
    row = ",".join("1" for _ in header.split(","))
    assert read_events(written(tmp_path / "e.csv", f"{header}\n{row}\n")).columns == columns


def test_of_several_aliases_the_first_wins(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "asin,parent_asin,user_id\nchild,parent,1\n")
    assert read_events(path).rows() == [("1", "parent")]


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2024-01-31", 1706659200),
        ("2024-01-31 10:00:01", 1706695201),
        ("2024-01-31T10:00:01", 1706695201),
        ("2024-01-31T10:00:01Z", 1706695201),
        ("2024-01-31T12:00:01+02:00", 1706695201),
        ("1706695201", 1706695201),
        ("1706695201.9", 1706695201),
    ],
)
def test_iso_dates_and_seconds_are_understood(tmp_path: Path, cell: str, seconds: int) -> None:
    path = written(tmp_path / "e.tsv", f"user_id\titem_id\ttimestamp\n1\tx\t{cell}\n")
    assert read_events(path)["timestamp"].to_list() == [seconds]


def test_dates_of_parquet_become_seconds(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 1, 31, 10, 0, 1)
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [moment]})
    zoned = frame.with_columns(pl.col("timestamp").dt.replace_time_zone("Europe/Paris"))
    day = frame.with_columns(pl.col("timestamp").dt.date())
    for table, seconds in ((frame, 1706695201), (zoned, 1706695201 - 3600), (day, 1706659200)):
        table.write_parquet(tmp_path / "e.parquet")
        assert read_events(tmp_path / "e.parquet")["timestamp"].to_list() == [seconds]


def test_empty_cells_of_ratings_and_timestamps_stay_empty(tmp_path: Path) -> None:
    header, rows = "\t".join(EVENT_COLUMNS), "1\tx\t\t\n2\ty\t4\t5\n"
    frame = read_events(written(tmp_path / "e.tsv", f"{header}\n{rows}"))
    assert frame.rows() == [("1", "x", None, None), ("2", "y", 4.0, 5)]
