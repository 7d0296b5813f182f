"""Tables as datasets: columns that are not read, histories beside a target, rows without ids, ids that do not meet."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.matching import unmet_ids
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.readers import event_table, item_table, user_table
from cllm4rec.data.split_tables import parts_table


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def refused(call: Any, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(ValueError) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def prepared(folder: Path, *flags: object) -> Dataset:
    prepare.main([*map(str, flags), "--output", str(folder / "data")])
    return Dataset.load(folder / "data")


def events_of(dataset: Dataset) -> list[tuple[object, object]]:
    """(user, item) in order."""
    users, items = dataset.interactions.users, dataset.interactions.items
    return list(zip(dataset.user_ids.names(users).to_list(), dataset.item_ids.names(items).to_list(), strict=True))


# Columns that are not read.


@pytest.mark.parametrize("kind", ["e.csv", "e.tsv", "e.inter", "e.jsonl", "e.json", "e.parquet", "pandas", "polars", "arrow"])
def test_columns_that_are_not_read_are_named_by_every_reader(kind: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"user": ["u"], "asin": ["a"], "parent_asin": ["p"], "images": ["x"], "helpful vote": ["3"]})
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
        source = {"pandas": lambda: pd.DataFrame(table.to_dicts()), "polars": lambda: table, "arrow": table.to_arrow}[kind]()
    found = event_table(source)
    assert found.unread == ("asin", "images", "helpful vote")
    assert found.account() == [
        "user_id from user, item_id from parent_asin",
        "columns not read: asin, images, helpful vote",
        "columns that could be read instead, by name: asin for item_id",
    ]
    assert item_table(source).unread == ("user", "asin", "images", "helpful vote")
    assert user_table(source).unread == ("asin", "parent_asin", "images", "helpful vote")


def test_prepare_prints_the_columns_of_each_table_that_are_not_read(tmp_path: Path, capsys: Any) -> None:
    more = ",".join(f"c{number}" for number in range(25))
    events = written(tmp_path / "e.csv", f"user_id,item_id,{more}\n" + "".join(f"u,i{i}{',' * 25}\n" for i in range(4)))
    items = written(tmp_path / "i.csv", "item_id,title,price\ni0,Zero,5\n")
    users = written(tmp_path / "u.csv", "user_id,age\nu,5\n")
    parts = written(tmp_path / "s.csv", "user_id,item_id,seed_0,seed_1\nu,i0,t,v\nu,i1,t,v\n")
    prepared(tmp_path, "--interactions", events, "--items", items, "--users", users, "--split", parts)
    printed = capsys.readouterr().out.splitlines()
    first = ", ".join(f"c{number}" for number in range(20))
    assert f"e.csv: columns not read: {first} and 5 more" in printed
    assert "i.csv: columns not read: price" in printed
    assert "u.csv: columns not read: age" in printed
    assert "s.csv: columns not read: seed_1" in printed
    rows = written(tmp_path / "h.csv", "user_id,history_items,target_item,split,note\nu,i0 i1,i2,test,x\n")
    prepared(tmp_path, "--interactions", events, "--split", rows)
    assert "h.csv: columns not read: note" in capsys.readouterr().out.splitlines()


def test_a_table_of_which_all_is_read_prints_no_such_line(tmp_path: Path, capsys: Any) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id,date,time\nu,a,2024-01-31,09:00\n")
    rows = written(tmp_path / "h.csv", "history_items,target_item,split\na,b,test\n")
    prepared(tmp_path, "--interactions", events, "--split", rows)
    printed = capsys.readouterr().out
    assert "not read" not in printed
    assert "e.csv: timestamp from date + time" in printed


def test_a_split_table_names_the_columns_that_hold_no_parts() -> None:
    table = parts_table(pl.DataFrame({"userId": [1], "asin": [2], "seed_0": ["t"], "mine": ["e"], "asin_title": ["x"]}))
    assert table.unread("seed_0") == ["mine", "asin_title"]
    assert table.unread("mine") == ["seed_0", "asin_title"]


# Histories beside a target.

HISTORY = [("u", "a", 0), ("u", "b", 1), ("u", "c", 2), ("v", "a", 3)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", "user_id,parent_asin,history\nu,c,a b\nv,a,\n"),
        ("e.tsv", "user_id\titem_id\titem_ids\nu\tc\ta  b\nv\ta\t\n"),
        ("e.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\nv\t\ta\n"),
        ("e.jsonl", '{"user_id":"u","item_id":"c","history":["a","b"]}\n{"user_id":"v","item_id":"a","history":null}\n'),
        ("lists.csv", "user_id,item_id,history\nu,c,\"['a', 'b']\"\nv,a,[]\n"),
        ("json.csv", 'user_id,item_id,history\nu,c,"[""a"", ""b""]"\nv,a,\n'),
    ],
)
def test_a_history_beside_a_target_is_events_before_it(name: str, content: str, tmp_path: Path) -> None:
    found = event_table(written(tmp_path / name, content))
    assert found.frame.select("user_id", "item_id", "position").rows() == HISTORY
    assert found.n_from_histories == 2
    assert found.unread == ()


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
    found = event_table(source)
    assert found.frame.rows() == [(1, 1, 0), (1, 2, 1), (1, 3, 2), (1, 4, 3), (2, 1, 4)]
    assert found.frame.schema["item_id"] == pl.Int64


def test_items_of_a_history_that_have_a_row_are_not_repeated_and_rows_are_ordered_by_time(tmp_path: Path) -> None:
    content = "user_id,parent_asin,rating,timestamp,history\nu,c,5,30,x a b\nu,b,4,20,x a\nu,a,3,10,x\n"
    found = event_table(written(tmp_path / "e.csv", content))
    assert found.frame.rows() == [
        ("u", "x", None, None, 0),
        ("u", "a", 3.0, 10, 1),
        ("u", "b", 4.0, 20, 2),
        ("u", "c", 5.0, 30, 3),
    ]
    assert found.account()[-1] == "histories: 1 event without a row, rating and time"
    dataset = build_dataset(tmp_path / "e.csv", split="leave-last-out")
    assert events_of(dataset) == [("u", "x"), ("u", "a"), ("u", "b"), ("u", "c")]
    assert dataset.part.tolist() == [0, 0, 1, 2]


def test_amazon_with_histories_as_in_the_shared_case(tmp_path: Path) -> None:
    content = "user_id,parent_asin,rating,timestamp,history\nu1,i3,5.0,1456420324000,i1 i2\nu2,i1,4.0,1456420325000,\n"
    dataset = build_dataset(written(tmp_path / "e.csv", content), split="leave-last-out")
    assert sorted(events_of(dataset.train), key=str) == [("u1", "i1"), ("u2", "i1")]
    assert (events_of(dataset.validation), events_of(dataset.test)) == ([("u1", "i2")], [("u1", "i3")])


def test_a_history_without_a_target_is_a_sequence(tmp_path: Path) -> None:
    found = event_table(written(tmp_path / "e.csv", "user_id,history\nu,a b c\n"))
    assert found.frame.rows() == [("u", "a", 0), ("u", "b", 1), ("u", "c", 2)]
    assert found.taken["item_ids"] == "history"


@pytest.mark.parametrize("history", [["x", None], ["x", " "], [1.5], [["x"]], [True]])
def test_a_history_that_holds_something_else_is_refused_by_row(history: Any) -> None:
    frame = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "history": [["x"], history]})
    assert "the events, row 2, column history" in refused(event_table, frame)


# Rows without ids.


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl", "e.parquet", "pandas"])
def test_rows_without_a_user_or_an_item_are_dropped_and_counted(name: str, tmp_path: Path, capsys: Any) -> None:
    columns = {"user_id": [17850.0, None, None, 2.0, 3.0], "item_id": ["a", "b", "a", None, "c"], "rating": [5, 4, 3, 2, 1]}
    source: Any = tmp_path / name
    if name == "e.csv":
        pl.DataFrame(columns).with_columns(pl.col("user_id").cast(pl.Int64)).write_csv(source)
    elif name == "e.jsonl":
        pl.DataFrame(columns).write_ndjson(source)
    elif name == "e.parquet":
        pl.DataFrame(columns).write_parquet(source)
    else:
        source = pd.DataFrame(columns)
    message = refused(build_dataset, source)
    assert "column user_id: an empty cell: an id is needed: leave such rows out, as prepare --drop-incomplete" in message
    assert "(2 such rows)" in message
    dataset = build_dataset(source, drop_incomplete=True, split="none")
    assert sorted(events_of(dataset), key=str) == [
        (17850 if name != "e.csv" else "17850", "a"),
        (3 if name != "e.csv" else "3", "c"),
    ]
    rule = {"rule": "events without a user or item id", "users": 1, "items": 1, "events": 3}
    assert dataset.about["rules"][0] == rule
    if name != "pandas":
        prepared(tmp_path, "--interactions", source, "--drop-incomplete")
        assert "events without a user or item id: dropped 3 events, 1 user, 1 item" in capsys.readouterr().out


def test_a_row_below_dropped_ones_is_still_named_by_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id,rating\n,a,5\n\nu,b,4\nv, ,3\nv,c,good\n")
    assert "line 6, column rating: 'good'" in refused(event_table, path, drop_incomplete=True)
    assert "line 2, column user_id: an empty cell" in refused(event_table, path)


def test_rows_of_items_and_users_without_an_id_and_sequences_without_items_are_dropped_too(tmp_path: Path, capsys: Any) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_ids\nu,a b\nv,\n,c\n")
    items = written(tmp_path / "i.csv", "item_id,title\na,A\n,B\n")
    users = written(tmp_path / "u.csv", "user_id,bio\n,x\n ,y\nu,z\n")
    assert "line 4, column user_id" in refused(event_table, events)
    assert "line 3, column item_id" in refused(item_table, items)
    dataset = prepared(tmp_path, "--interactions", events, "--items", items, "--users", users, "--drop-incomplete")
    assert sorted(events_of(dataset)) == [("u", "a"), ("u", "b")]
    printed = capsys.readouterr().out.splitlines()
    assert "events without a user or item id: dropped 2 events, 1 user, 1 item" in printed
    assert "i.csv: dropped 1 row without an id" in printed
    assert "u.csv: dropped 2 rows without an id" in printed


def test_a_table_of_which_no_row_has_ids_leaves_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id\n,a\n,b\n")
    message = refused(build_dataset, path, drop_incomplete=True)
    assert "nothing is left to learn from: events without a user or item id: dropped 2 events" in message


# Ids that do not meet.


@pytest.mark.parametrize(
    ("ours", "theirs", "cause"),
    [
        (["007", "012"], ["7", "12"], "they differ in leading zeros; write both alike"),
        (["1", "2"], ["1.0", "2.0"], "they differ in a fraction .0; write both alike"),
        (["1", "2"], [" 1", "2 "], "they differ in surrounding spaces; write both alike"),
        (["b00x", "b00y"], ["B00X", "B00Y"], "they differ in upper and lower case; write both alike"),
        (["a", "b"], ['"a"', '"b"'], "they differ in quotes; write both alike"),
        (["007", "008"], [" 7.0", "8.0"], "more than one of these: surrounding spaces, leading zeros"),
        (["a", "b"], ["x", "y"], "take care that both use the same ids"),
    ],
)
def test_ids_that_meet_no_row_are_warned_of_with_an_example_and_the_cause(
    ours: list[str], theirs: list[str], cause: str
) -> None:
    events = pl.DataFrame({"user_id": ours, "item_id": ours})
    items = pl.DataFrame({"item_id": theirs, "title": ["T", "S"]})
    users = pl.DataFrame({"user_id": theirs})
    warnings = build_dataset(events, items, users).about["warnings"]
    for kind, line in zip(("item", "user"), warnings, strict=True):
        assert f"none of the 2 {kind}s of the events has a row in the {kind}s: {ours[0]!r} in the events" in line
        assert cause in line


def test_whole_numbers_and_their_texts_meet_and_a_larger_half_needs_no_warning() -> None:
    events = pl.DataFrame({"user_id": [1, 2, 3], "item_id": [7, 8, 9]})
    for items in (["7", "8"], ["8", "9", "07"], ["7", "10", "11"]):
        assert build_dataset(events, pl.DataFrame({"item_id": items})).about["warnings"] == []
    (line,) = build_dataset(events, pl.DataFrame({"item_id": ["7", "08", "09"]})).about["warnings"]
    assert line == (
        "2 of 3 items of the events have no row in the items: '8' in the events, '08' there: "
        "they differ in leading zeros; write both alike"
    )


def test_split_files_whose_ids_do_not_meet_are_warned_of(tmp_path: Path, capsys: Any) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id\nu,007\nu,008\nv,009\n")
    parts = written(tmp_path / "s.csv", "user_id,item_id,seed_0\nu,7,t\nv,9,e\n")
    message = refused(prepared, tmp_path, "--interactions", events, "--split", parts)
    assert "nothing is left to learn from" in message
    assert "none of the 3 items of the events has a row in s.csv: '007' in the events, '7' there" in message
    rows = written(tmp_path / "h.csv", "user_id,history_items,target_item,split\nu,7 8,9,test\n")
    prepared(tmp_path, "--interactions", events, "--split", rows)
    assert "warning: none of the 3 items of the events has a row in h.csv: '007'" in capsys.readouterr().out


def test_an_example_is_short_and_in_one_line() -> None:
    (line,) = unmet_ids(pl.Series(["a\n" * 500]), pl.Series(["b"]), "item", "i.csv")
    assert line.isprintable()
    assert len(line) < 300


# Seeds.


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("name", ["seed", "shuffle_ties"])
def test_a_seed_that_is_negative_or_beyond_63_bits_is_refused(name: str, seed: int, tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,item_id,timestamp\nu,a,1\nu,b,1\n")
    flags = ["--interactions", path, f"--{name.replace('_', '-')}", seed]
    assert f"{name} is {seed}: " in refused(prepared, tmp_path, *flags)
    settings: dict[str, Any] = {name: seed}
    assert f"{name} is {seed}: it may be 0 to {2**63 - 1}" in refused(build_dataset, path, **settings)
    prepared(tmp_path, *flags[:-1], 2**63 - 1)


def test_a_number_beside_a_target_is_no_history() -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "history": [5]})
    found = event_table(frame)
    assert (found.frame.rows(), found.unread) == ([("u", "a")], ("history",))


@pytest.mark.parametrize("kind", ["e.csv", "e.tsv", "e.inter", "e.jsonl", "e.parquet", "pandas", "polars"])
@pytest.mark.parametrize(
    "cells", [["0", "1", "2"], ["viewed after search", "", "direct"], ["[see, note]", "a|b", "x,y"], ["1", None, "2.5"]]
)
def test_counts_and_texts_beside_a_target_are_no_histories(cells: list[str | None], kind: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["1", "i2", "i1"], "timestamp": [1, 2, 3], "history": cells})
    source: Any = tmp_path / kind
    if kind.endswith(("csv", "tsv", "inter")):
        table.write_csv(source, separator="," if kind == "e.csv" else "\t")
    elif kind == "e.jsonl":
        table.write_ndjson(source)
    elif kind == "e.parquet":
        table.write_parquet(source)
    else:
        source = pd.DataFrame(table.to_dicts()) if kind == "pandas" else table
    found = event_table(source)
    assert found.frame.rows() == [("u", "1", 1), ("u", "i2", 2), ("v", "i1", 3)]
    assert (found.unread, found.n_from_histories) == (("history",), 0)
    assert found.account()[-2:] == [
        "columns not read: history",
        "columns that could be read instead, by name: history for item_ids",
    ]


@pytest.mark.parametrize("cells", ["a b|a", "a,b|a", "a, b|a", "a;b|a"])
@pytest.mark.parametrize("name", ["e.tsv", "polars"])
def test_a_history_is_split_by_what_gives_target_items(cells: str, name: str, tmp_path: Path) -> None:
    first, second = cells.replace(";", "|").rsplit("|", 1)
    table = pl.DataFrame({"user_id": ["u", "v", "w"], "item_id": ["c", "b", "a"], "history": [first, second, None]})
    source: Any = table
    if name == "e.tsv":
        source = tmp_path / name
        table.write_csv(source, separator="\t")
    assert event_table(source).frame.select("user_id", "item_id").rows() == [
        ("u", "a"), ("u", "b"), ("u", "c"), ("v", "a"), ("v", "b"), ("w", "a"),
    ]  # fmt: skip


def test_ids_may_hold_a_comma_or_a_space() -> None:
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["c", "x,y"], "history": ["x,y b", None]})
    assert event_table(frame).frame["item_id"].to_list() == ["x,y", "b", "c", "x,y"]
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["Heat", "Toy Story"], "history": ["Toy Story|Up", ""]})
    assert event_table(frame).frame["item_id"].to_list() == ["Toy Story", "Up", "Heat", "Toy Story"]


def test_a_column_that_is_named_is_a_history_whatever_it_holds() -> None:
    names = {"item_ids": "history"}
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["c"], "history": ["a b"]})
    assert event_table(frame).frame.rows() == [("u", "c")]
    assert event_table(frame, names).frame["item_id"].to_list() == ["a", "b", "c"]
    numbers = pl.DataFrame({"user_id": ["u"], "item_id": ["c"], "history": ["1"]})
    assert event_table(numbers, names).frame["item_id"].to_list() == ["1", "c"]
    message = refused(event_table, frame.with_columns(history=pl.lit("a,b")), names)
    assert "the events, row 1, column history: 'a,b': item ids with spaces between are needed" in message


@pytest.mark.parametrize("cell", ["a,b", "a|b"])
def test_sequences_with_another_separator_are_refused(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path / "e.tsv", f"user_id\titem_ids\nu\t{cell}\nv\tc\n")
    assert f"line 2, column item_ids: {cell!r}: item ids with spaces between are needed" in refused(event_table, path)
    rows = pl.DataFrame({"history_items": [cell], "target_item": ["c"], "split": ["test"]})
    assert "the split, row 1, column history_items" in refused(parts_table, rows)
    assert event_table(written(path, "user_id\titem_ids\nu\tx,y b\n")).frame["item_id"].to_list() == ["x,y", "b"]


def test_a_missing_id_of_a_frame_is_refused_with_advice_for_every_call() -> None:
    frame = pl.DataFrame({"user_id": ["u", None], "item_id": ["a", "b"], "note": [1, 2]})
    dataset = Dataset.from_frame(frame.head(1))
    words = "an id is needed: leave such rows out, as prepare --drop-incomplete and build_dataset(drop_incomplete=True) do"
    for call in (Dataset.from_frame, dataset.with_histories, build_dataset):
        assert words in refused(call, frame)
    assert "columns_not_read" not in dataset.about


def test_rows_of_a_split_file_without_an_id_are_refused_or_dropped_and_counted(tmp_path: Path, capsys: Any) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id\nu,a\nu,b\nv,a\n")
    parts = written(tmp_path / "s.csv", "user_id,item_id,seed_0\nu,a,t\n,b,t\nv,,e\nu,b,e\n")
    flags = ["--interactions", events, "--split", parts]
    assert f"{parts}, line 3, column user_id: an empty cell: an id is needed" in refused(prepared, tmp_path, *flags)
    dataset = prepared(tmp_path, *flags, "--drop-incomplete")
    assert (events_of(dataset.train), events_of(dataset.test)) == ([("u", "a")], [("u", "b")])
    assert "s.csv: dropped 2 rows without an id" in capsys.readouterr().out.splitlines()
    wrong = written(tmp_path / "s.csv", "user_id,item_id,seed_0\n,a,t\nu,b,x\n")
    assert f"{wrong}, line 3, column seed_0: 'x'" in refused(prepared, tmp_path, *flags, "--drop-incomplete")


def test_held_out_rows_without_an_id_are_refused_or_dropped_and_counted(tmp_path: Path, capsys: Any) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id\nu,a\nu,b\nv,a\n")
    header = "user_id,history_items,target_item,split\n"
    rows = written(tmp_path / "h.csv", f"{header}u,a,,test\n,a,b,test\nu,a,b,test\n")
    flags = ["--interactions", events, "--split", rows]
    assert f"{rows}, line 2, column target_item: an empty cell" in refused(prepared, tmp_path, *flags)
    dataset = prepared(tmp_path, *flags, "--drop-incomplete")
    assert (events_of(dataset.train), events_of(dataset.test)) == ([("v", "a")], [("u", "b")])
    assert "h.csv: dropped 2 rows without an id" in capsys.readouterr().out.splitlines()
    written(rows, header.removeprefix("user_id,") + "a,,test\na,b,test\n")
    assert events_of(prepared(tmp_path, *flags, "--drop-incomplete").test) == [("test-1", "b")]
    assert "h.csv: dropped 1 row without an id" in capsys.readouterr().out.splitlines()


def test_incomplete_rows_of_a_split_in_memory_are_dropped() -> None:
    frame = pl.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "a"]})
    parts = frame.with_columns(seed_0=pl.Series(["t", "e", "t"]), item_id=pl.Series(["a", "b", None]))
    dataset = build_dataset(frame, split="s", split_table=parts, drop_incomplete=True)
    assert (events_of(dataset.train), events_of(dataset.test)) == ([("u", "a")], [("u", "b")])
