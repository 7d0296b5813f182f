"""Histories: a column of the items before the target of each row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.tables import read_event_table
from tests.support.event_files import dataset_events
from tests.support.tables import refused, written

HISTORY = [("u", "a", 0), ("u", "b", 1), ("u", "c", 2), ("v", "a", 3)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", "user_id,parent_asin,history\nu,c,a b\nv,a,\n"),
        ("e.tsv", "user_id\titem_id\titem_ids\nu\tc\ta  b\nv\ta\t\n"),
        ("e.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\nv\t\ta\n"),
        (
            "e.jsonl",
            '{"user_id":"u","item_id":"c","history":["a","b"]}\n'
            '{"user_id":"v","item_id":"a","history":null}\n',
        ),
        ("lists.csv", "user_id,item_id,history\nu,c,\"['a', 'b']\"\nv,a,[]\n"),
        ("json.csv", 'user_id,item_id,history\nu,c,"[""a"", ""b""]"\nv,a,\n'),
    ],
)
def test_a_history_gives_events_before_the_target(name: str, content: str, tmp_path: Path) -> None:
    checked = read_event_table(written(tmp_path / name, content))
    assert checked.frame.select("user_id", "item_id", "position").rows() == HISTORY
    assert checked.n_from_histories == 2
    assert checked.unread == ()


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame, pa.table, "parquet", "arrays"])
def test_histories_of_typed_tables(frame: Any, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"user_id": [1, 1, 2], "item_id": [3, 4, 1], "history": [[1, 2], [1, 2, 3], []]}
    if frame == "arrays":
        source: Any = pd.DataFrame(columns | {"history": [np.array(cell) for cell in columns["history"]]})
    elif frame == "parquet":
        pl.DataFrame(columns).write_parquet(tmp_path / "e.parquet")
        source = tmp_path / "e.parquet"
    else:
        source = frame(columns)
    checked = read_event_table(source)
    assert checked.frame.rows() == [(1, 1, 0), (1, 2, 1), (1, 3, 2), (1, 4, 3), (2, 1, 4)]
    assert checked.frame.schema["item_id"] == pl.Int64


def test_items_of_a_history_that_have_a_row_are_not_repeated_and_rows_are_ordered_by_time(
    tmp_path: Path,
) -> None:
    content = "user_id,parent_asin,rating,timestamp,history\nu,c,5,30,x a b\nu,b,4,20,x a\nu,a,3,10,x\n"
    checked = read_event_table(written(tmp_path / "e.csv", content))
    assert checked.frame.rows() == [
        ("u", "x", None, None, 0),
        ("u", "a", 3.0, 10, 1),
        ("u", "b", 4.0, 20, 2),
        ("u", "c", 5.0, 30, 3),
    ]
    assert checked.report()[-1] == "histories: 1 event without a row, rating and time"
    dataset = Dataset.from_frame(tmp_path / "e.csv", split="leave-last-out")
    assert dataset_events(dataset) == [("u", "x"), ("u", "a"), ("u", "b"), ("u", "c")]
    assert dataset.part.tolist() == [0, 0, 1, 2]


def test_amazon_with_histories(tmp_path: Path) -> None:
    content = "user_id,parent_asin,rating,timestamp,history\n"
    content += "u1,i3,5.0,1456420324000,i1 i2\nu2,i1,4.0,1456420325000,\n"
    dataset = Dataset.from_frame(written(tmp_path / "e.csv", content), split="leave-last-out")
    assert sorted(dataset_events(dataset.train), key=str) == [("u1", "i1"), ("u2", "i1")]
    assert (dataset_events(dataset.validation), dataset_events(dataset.test)) == (
        [("u1", "i2")],
        [("u1", "i3")],
    )


def test_a_history_without_a_target_is_a_sequence(tmp_path: Path) -> None:
    checked = read_event_table(written(tmp_path / "e.csv", "user_id,history\nu,a b c\n"))
    assert checked.frame.rows() == [("u", "a", 0), ("u", "b", 1), ("u", "c", 2)]
    assert checked.mapping["item_ids"] == "history"


@pytest.mark.parametrize("history", [["x", None], ["x", " "], [1.5], [["x"]], [True]])
def test_a_history_that_holds_something_else_is_refused_by_row(history: Any) -> None:
    frame = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "history": [["x"], history]})
    assert "the events, row 2, column history" in refused(read_event_table, frame)


def test_a_number_is_no_history() -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "history": [5]})
    checked = read_event_table(frame)
    assert (checked.frame.rows(), checked.unread) == ([("u", "a")], ("history",))


@pytest.mark.parametrize("kind", ["e.csv", "e.tsv", "e.inter", "e.jsonl", "e.parquet", "pandas", "polars"])
@pytest.mark.parametrize(
    "cells",
    [
        ["0", "1", "2"],
        ["viewed after search", "", "direct"],
        ["[see, note]", "a|b", "x,y"],
        ["1", None, "2.5"],
    ],
)
def test_counts_and_texts_are_no_histories(cells: list[str | None], kind: str, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user_id": ["u", "u", "v"], "item_id": ["1", "i2", "i1"], "timestamp": [1, 2, 3], "history": cells}
    )
    source: Any = tmp_path / kind
    if kind.endswith(("csv", "tsv", "inter")):
        table.write_csv(source, separator="," if kind == "e.csv" else "\t")
    elif kind == "e.jsonl":
        table.write_ndjson(source)
    elif kind == "e.parquet":
        table.write_parquet(source)
    else:
        source = pd.DataFrame(table.to_dicts()) if kind == "pandas" else table
    checked = read_event_table(source)
    assert checked.frame.rows() == [("u", "1", 1), ("u", "i2", 2), ("v", "i1", 3)]
    assert (checked.unread, checked.n_from_histories) == (("history",), 0)
    assert checked.report()[-2:] == [
        "columns not read: history",
        "columns that could be read instead, by name: history for item_ids",
    ]


@pytest.mark.parametrize("cells", ["a b|a", "a,b|a", "a, b|a", "a;b|a"])
@pytest.mark.parametrize("name", ["e.tsv", "polars"])
def test_a_history_is_split_by_the_separator_that_gives_target_items(
    cells: str, name: str, tmp_path: Path
) -> None:
    first, second = cells.replace(";", "|").rsplit("|", 1)
    table = pl.DataFrame(
        {"user_id": ["u", "v", "w"], "item_id": ["c", "b", "a"], "history": [first, second, None]}
    )
    source: Any = table
    if name == "e.tsv":
        source = tmp_path / name
        table.write_csv(source, separator="\t")
    assert read_event_table(source).frame.select("user_id", "item_id").rows() == [
        ("u", "a"), ("u", "b"), ("u", "c"), ("v", "a"), ("v", "b"), ("w", "a"),
    ]  # fmt: skip


def test_ids_may_hold_a_comma_or_a_space() -> None:
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["c", "x,y"], "history": ["x,y b", None]})
    assert read_event_table(frame).frame["item_id"].to_list() == ["x,y", "b", "c", "x,y"]
    frame = pl.DataFrame(
        {"user_id": ["u", "v"], "item_id": ["Heat", "Toy Story"], "history": ["Toy Story|Up", ""]}
    )
    assert read_event_table(frame).frame["item_id"].to_list() == ["Toy Story", "Up", "Heat", "Toy Story"]


def test_a_column_that_is_named_is_a_history_whatever_it_holds() -> None:
    names = {"item_ids": "history"}
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["c"], "history": ["a b"]})
    assert read_event_table(frame).frame.rows() == [("u", "c")]
    assert read_event_table(frame, names).frame["item_id"].to_list() == ["a", "b", "c"]
    numbers = pl.DataFrame({"user_id": ["u"], "item_id": ["c"], "history": ["1"]})
    assert read_event_table(numbers, names).frame["item_id"].to_list() == ["1", "c"]
    message = refused(read_event_table, frame.with_columns(history=pl.lit("a,b")), names)
    assert "the events, row 1, column history: 'a,b': expected item ids separated by spaces" in message
