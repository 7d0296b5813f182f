"""Columns of tables: found, named, read once, or reported as not read."""

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.description import TableReport
from cllm4rec.data.readers.tables import read_event_table, read_events, read_item_table, read_user_table
from tests.support.datasets import description_of
from tests.support.event_files import prepare_dataset
from tests.support.tables import json_lines, refused, written


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "buyer,sku,when,item_id,stars\nann,7,5,other,4\n")
    frame = read_events(path, {"user_id": "buyer", "item_id": "sku", "timestamp": "when"})
    assert frame.to_dicts() == [{"user_id": "ann", "item_id": "7", "rating": 4.0, "timestamp": 5}]
    records = written(tmp_path / "e.jsonl", json_lines({"buyer": "ann", "sku": 7, "note": ["a", "b"]}))
    names = {"user_id": "buyer", "item_id": "sku", "review_text": "note"}
    assert read_events(records, names).to_dicts() == [{"user_id": "ann", "item_id": 7, "review_text": "a b"}]
    message = refused(read_events, path, {"user_id": "customer"})
    assert "'customer'" in message
    assert "user_id, item_id" in message
    assert "buyer, sku, when, item_id, stars" in message


def test_a_column_is_taken_once(tmp_path: Path) -> None:
    """Named for one purpose, a column is not found for another too."""
    (tmp_path / "e.csv").write_text("user_id,item_id,score\nu,a,5\n")
    taken = read_event_table(tmp_path / "e.csv", {"position": "score"}).mapping
    assert taken == {"user_id": "user_id", "item_id": "item_id", "position": "score"}


@pytest.mark.parametrize(
    "kind", ["e.csv", "e.tsv", "e.inter", "e.jsonl", "e.json", "e.parquet", "pandas", "polars", "arrow"]
)
def test_columns_that_are_not_read_are_named_by_every_reader(kind: str, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user": ["u"], "asin": ["a"], "parent_asin": ["p"], "images": ["x"], "helpful vote": ["3"]}
    )
    source: Any = tmp_path / kind
    if kind.endswith(("csv", "tsv", "inter")):
        table.write_csv(source, separator="," if kind == "e.csv" else "\t")
    elif kind.endswith("jsonl"):
        table.write_ndjson(source)
    elif kind.endswith("json"):
        table.write_json(source)
    elif kind.endswith("parquet"):
        table.write_parquet(source)
    else:
        source = {
            "pandas": lambda: pd.DataFrame(table.to_dicts()),
            "polars": lambda: table,
            "arrow": table.to_arrow,
        }[kind]()
    checked = read_event_table(source)
    assert checked.unread == ("asin", "images", "helpful vote")
    assert checked.report() == [
        "user_id from user, item_id from parent_asin",
        "columns not read: asin, images, helpful vote",
        "columns that could be read instead, by name: asin for item_id",
    ]
    assert read_item_table(source).unread == ("user", "asin", "images", "helpful vote")
    assert read_user_table(source).unread == ("asin", "parent_asin", "images", "helpful vote")


@pytest.mark.parametrize("cell", ["1.5", "inf", "1e300", "x"])
def test_positions_are_whole_numbers(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path / "e.csv", f"user_id,item_id,position\n1,x,{cell}\n1,y,5.0\n")
    assert f"line 2, column position: {cell!r}: expected a whole number" in refused(read_events, path)
    frame = pl.DataFrame({"user_id": ["1"], "item_id": ["x"], "position": [1.5]})
    assert "the events, row 1, column position: 1.5" in refused(Dataset.from_frame, frame)


def test_prepare_takes_names_and_a_separator_and_says_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = written(
        tmp_path / "e.csv", "buyer;sku;when\n" + "".join(f"u{i % 3};i{i};{i}\n" for i in range(12))
    )
    items = written(tmp_path / "i.csv", "sku;label\ni0;Zero\ni0;Nought\ni1;\nnobody;Took\n")
    users = written(
        tmp_path / "u.jsonl", json_lines({"buyer": "u0", "about": "likes tea"}, {"buyer": "u9", "about": ""})
    )
    flags = ["--interactions", events, "--items", items, "--users", users, "--separator", ";"]
    names = ["--columns", "user_id=buyer,item_id=sku,timestamp=when"]
    names += ["--item-columns", "item_id=sku,title=label", "--user-columns", "user_id=buyer,biography=about"]
    description = description_of(prepare_dataset(tmp_path, *flags, *names))
    printed = capsys.readouterr().out
    assert "e.csv: user_id from buyer, item_id from sku, timestamp from when" in printed
    assert "i.csv: item_id from sku, title from label" in printed
    rows = "rows that repeat an id: 1 (the first is kept); rows without events: 1 (left out)"
    assert f"items: {rows}; items with events and no row: 10" in printed
    assert "title: a text for 1 of 12 items" in printed
    assert "items without any text: 11" in printed
    assert description.columns["interactions"] == {"user_id": "buyer", "item_id": "sku", "timestamp": "when"}
    assert description.tables["items"] == TableReport(1, rows_without_events=1, without_a_row=10)
    assert description.tables["users"] == TableReport(0, rows_without_events=1, without_a_row=2)


def test_names_of_columns_without_their_table_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id\n1,a\n")
    for table in ("item", "user"):
        flags = ["--interactions", path, f"--{table}-columns", f"{table}_id=x"]
        assert f"give --{table}s too" in refused(prepare_dataset, tmp_path, *flags)
    assert "'colour' cannot be read from a column 'x'" in refused(read_events, path, {"colour": "x"})


def test_prepare_prints_the_columns_of_each_table_that_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ",".join(f"c{number}" for number in range(25))
    events = written(
        tmp_path / "e.csv", f"user_id,item_id,{more}\n" + "".join(f"u,i{i}{',' * 25}\n" for i in range(4))
    )
    items = written(tmp_path / "i.csv", "item_id,title,price\ni0,Zero,5\n")
    users = written(tmp_path / "u.csv", "user_id,age\nu,5\n")
    parts = written(tmp_path / "s.csv", "user_id,item_id,seed_0,seed_1\nu,i0,t,v\nu,i1,t,v\n")
    prepare_dataset(tmp_path, "--interactions", events, "--items", items, "--users", users, "--split", parts)
    printed = capsys.readouterr().out.splitlines()
    first = ", ".join(f"c{number}" for number in range(20))
    assert f"e.csv: columns not read: {first} and 5 more" in printed
    assert "i.csv: columns not read: price" in printed
    assert "u.csv: columns not read: age" in printed
    assert "s.csv: columns not read: seed_1" in printed
    rows = written(tmp_path / "h.csv", "user_id,history_items,target_item,split,note\nu,i0 i1,i2,test,x\n")
    prepare_dataset(tmp_path, "--interactions", events, "--split", rows)
    assert "h.csv: columns not read: note" in capsys.readouterr().out.splitlines()


def test_no_column_is_reported_if_all_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id,date,time\nu,a,2024-01-31,09:00\n")
    rows = written(tmp_path / "h.csv", "history_items,target_item,split\na,b,test\n")
    prepare_dataset(tmp_path, "--interactions", events, "--split", rows)
    printed = capsys.readouterr().out
    assert "not read" not in printed
    assert "e.csv: timestamp from date + time" in printed
