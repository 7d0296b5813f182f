"""Rows without the id of a user or an item: refused, or dropped and counted."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.tables import read_event_table, read_item_table
from tests.support.datasets import description_of
from tests.support.event_files import dataset_events, prepare_dataset
from tests.support.tables import refused, written


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl", "e.parquet", "pandas"])
def test_rows_without_a_user_or_an_item_are_dropped_and_counted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {
        "user_id": [17850.0, None, None, 2.0, 3.0],
        "item_id": ["a", "b", "a", None, "c"],
        "rating": [5, 4, 3, 2, 1],
    }
    source: Any = tmp_path / name
    if name == "e.csv":
        pl.DataFrame(columns).with_columns(pl.col("user_id").cast(pl.Int64)).write_csv(source)
    elif name == "e.jsonl":
        pl.DataFrame(columns).write_ndjson(source)
    elif name == "e.parquet":
        pl.DataFrame(columns).write_parquet(source)
    else:
        source = pd.DataFrame(columns)
    message = refused(Dataset.from_frame, source)
    advice = "leave such rows out (`drop_incomplete` does so)"
    assert f"column user_id: an empty cell: expected an id: {advice}" in message
    assert "(2 such rows)" in message
    dataset = Dataset.from_frame(source, drop_incomplete=True, split="none")
    assert sorted(dataset_events(dataset), key=str) == [
        (17850 if name != "e.csv" else "17850", "a"),
        (3 if name != "e.csv" else "3", "c"),
    ]
    rule = {"rule": "events without a user or item id", "users": 1, "items": 1, "events": 3}
    assert asdict(description_of(dataset).rules[0]) == rule
    if name != "pandas":
        prepare_dataset(tmp_path, "--interactions", source, "--drop-incomplete")
        assert "events without a user or item id: dropped 3 events, 1 user, 1 item" in capsys.readouterr().out


def test_a_row_below_dropped_ones_is_still_named_by_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id,rating\n,a,5\n\nu,b,4\nv, ,3\nv,c,good\n")
    assert "line 6, column rating: 'good'" in refused(read_event_table, path, drop_incomplete=True)
    assert "line 2, column user_id: an empty cell" in refused(read_event_table, path)


def test_rows_of_items_and_users_without_an_id_and_sequences_without_items_are_dropped_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_ids\nu,a b\nv,\n,c\n")
    items = written(tmp_path / "i.csv", "item_id,title\na,A\n,B\n")
    users = written(tmp_path / "u.csv", "user_id,bio\n,x\n ,y\nu,z\n")
    assert "line 4, column user_id" in refused(read_event_table, events)
    assert "line 3, column item_id" in refused(read_item_table, items)
    dataset = prepare_dataset(
        tmp_path, "--interactions", events, "--items", items, "--users", users, "--drop-incomplete"
    )
    assert sorted(dataset_events(dataset)) == [("u", "a"), ("u", "b")]
    printed = capsys.readouterr().out.splitlines()
    assert "events without a user or item id: dropped 2 events, 1 user, 1 item" in printed
    assert "i.csv: dropped 1 row without an id" in printed
    assert "u.csv: dropped 2 rows without an id" in printed


def test_a_table_without_ids_leaves_no_events(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id\n,a\n,b\n")
    message = refused(Dataset.from_frame, path, split="random", drop_incomplete=True)
    assert "nothing is left to learn from: events without a user or item id: dropped 2 events" in message


def test_rows_of_a_split_file_without_an_id_are_refused_or_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id\nu,a\nu,b\nv,a\n")
    parts = written(tmp_path / "s.csv", "user_id,item_id,seed_0\nu,a,t\n,b,t\nv,,e\nu,b,e\n")
    flags = ["--interactions", events, "--split", parts]
    assert f"{parts}, line 3, column user_id: an empty cell: expected an id" in refused(
        prepare_dataset, tmp_path, *flags
    )
    dataset = prepare_dataset(tmp_path, *flags, "--drop-incomplete")
    assert (dataset_events(dataset.train), dataset_events(dataset.test)) == ([("u", "a")], [("u", "b")])
    assert "s.csv: dropped 2 rows without an id" in capsys.readouterr().out.splitlines()
    wrong = written(tmp_path / "s.csv", "user_id,item_id,seed_0\n,a,t\nu,b,x\n")
    assert f"{wrong}, line 3, column seed_0: 'x'" in refused(
        prepare_dataset, tmp_path, *flags, "--drop-incomplete"
    )


def test_held_out_rows_without_an_id_are_refused_or_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id\nu,a\nu,b\nv,a\n")
    header = "user_id,history_items,target_item,split\n"
    rows = written(tmp_path / "h.csv", f"{header}u,a,,test\n,a,b,test\nu,a,b,test\n")
    flags = ["--interactions", events, "--split", rows]
    assert f"{rows}, line 2, column target_item: an empty cell" in refused(prepare_dataset, tmp_path, *flags)
    dataset = prepare_dataset(tmp_path, *flags, "--drop-incomplete")
    assert (dataset_events(dataset.train), dataset_events(dataset.test)) == ([("v", "a")], [("u", "b")])
    assert "h.csv: dropped 2 rows without an id" in capsys.readouterr().out.splitlines()
    written(rows, header.removeprefix("user_id,") + "a,,test\na,b,test\n")
    assert dataset_events(prepare_dataset(tmp_path, *flags, "--drop-incomplete").test) == [("test-1", "b")]
    assert "h.csv: dropped 1 row without an id" in capsys.readouterr().out.splitlines()


def test_incomplete_rows_of_a_split_in_memory_are_dropped() -> None:
    frame = pl.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "a"]})
    parts = frame.with_columns(seed_0=pl.Series(["t", "e", "t"]), item_id=pl.Series(["a", "b", None]))
    dataset = Dataset.from_frame(frame, split=parts, drop_incomplete=True)
    assert (dataset_events(dataset.train), dataset_events(dataset.test)) == ([("u", "a")], [("u", "b")])
