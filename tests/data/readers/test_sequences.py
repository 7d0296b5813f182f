"""Sequences: the items of a user in one line or one cell."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_event_table, read_events, read_items
from tests.support.event_files import dataset_events, prepare_dataset
from tests.support.tables import json_lines, refused, written

P5 = "1 1 2 3\n2 5 1\n3 4\n"
ADVICE = "give `sequences` if each line is a user and the items in order"


def test_a_user_with_a_sequence_in_a_row_has_an_event_for_each_item_in_order(tmp_path: Path) -> None:
    path = written(tmp_path / "s.tsv", "user_id\titem_ids\nann\t7 007  3\nbob\tx\n")
    expected = [("ann", "7", 0), ("ann", "007", 1), ("ann", "3", 2), ("bob", "x", 0)]
    assert read_events(path).select("user_id", "item_id", "position").rows() == expected
    lists = written(
        tmp_path / "s.jsonl",
        json_lines({"user_id": "ann", "item_ids": [7, "007", 3]}, {"user_id": "bob", "item_ids": ["x"]}),
    )
    assert read_events(lists).select("user_id", "item_id", "position").rows() == expected
    assert "line 3, column item_ids" in refused(
        read_events, written(tmp_path / "s.tsv", "user_id\titem_ids\nann\t7\nbob\t \n")
    )


@pytest.mark.parametrize("cell", ["a,b", "a|b"])
def test_sequences_with_another_separator_are_refused(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path / "e.tsv", f"user_id\titem_ids\nu\t{cell}\nv\tc\n")
    assert f"line 2, column item_ids: {cell!r}: expected item ids separated by spaces" in refused(
        read_event_table, path
    )
    rows = pl.DataFrame({"history_items": [cell], "target_item": ["c"], "split": ["test"]})
    assert "the split, row 1, column history_items" in refused(read_split_table, rows)
    assert read_event_table(written(path, "user_id\titem_ids\nu\tx,y b\n")).frame["item_id"].to_list() == [
        "x,y",
        "b",
    ]


@pytest.mark.parametrize("name", ["s.txt", "s.tsv", "s.csv", "s.txt.gz"])
def test_lines_of_a_user_and_the_items_in_order(tmp_path: Path, name: str) -> None:
    between = {"s.tsv": "\t", "s.csv": ","}.get(name, " ")
    path = written(tmp_path / name, "1 1 2 3\r\n\n2 5 1 \n".replace(" ", between))
    expected = [("1", "1", 0), ("1", "2", 1), ("1", "3", 2), ("2", "5", 0), ("2", "1", 1)]
    events = read_events(TableFile(path, sequences=True))
    assert events.select("user_id", "item_id", "position").rows() == expected
    assert "`sequences` if each line is a user" in refused(read_events, path).replace(
        "sequences, if", "sequences if"
    )


def test_sequences_are_told_to_the_command(tmp_path: Path) -> None:
    path = written(tmp_path / "s.txt", "u b a\nv a\n")
    dataset = prepare_dataset(tmp_path, "--interactions", path, "--sequences", "--split", "none")
    assert dataset_events(dataset) == [("u", "b"), ("u", "a"), ("v", "a")]
    assert "`sequences`" in refused(read_events, TableFile(written(path, "1 1 2 3\n"), separator=" "))


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.inter", "p.txt", "p.csv.gz"])
@pytest.mark.parametrize("between", [" ", "\t", ","])
def test_the_advice_for_sequences_reads_them(tmp_path: Path, name: str, between: str) -> None:
    path = written(tmp_path / name, P5.replace(" ", between))
    message, commas = refused(read_events, path), between == "," and ".csv" not in name
    assert (ADVICE.replace("`sequences`", "`sequences` and `separator` ','") if commas else ADVICE) in message
    file = TableFile(path, sequences=True, separator="," if commas else None)
    assert read_events(file)["item_id"].to_list() == ["1", "2", "3", "5", "1", "4"]


@pytest.mark.parametrize("content", ["u1,a,b\n", "u1,a,b\nu2,b,c\n"])
def test_a_table_and_sequences_with_commas_are_both_advised(tmp_path: Path, content: str) -> None:
    message = refused(read_events, written(tmp_path / "p.txt", content))
    sequences = ADVICE.replace("`sequences`", "`sequences` and `separator` ','")
    assert message.endswith(f"or give `separator` ',' if it is a table, or {sequences}")


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.jsonl.gz"])
def test_sequences_with_a_name_of_json_are_to_be_renamed(tmp_path: Path, name: str) -> None:
    assert refused(read_events, written(tmp_path / name, P5)).endswith(
        f"it holds no JSON: name it .txt, and {ADVICE}"
    )
    assert "`sequences`" not in refused(read_items, tmp_path / name)


def test_sequences_are_not_advised_where_they_would_be_refused(tmp_path: Path) -> None:
    for content in ("u1,a,3\nu1,b,4\nu2,b,4\n", "uid,sku,when\nu1,a,3\nu2,b,4\n"):
        assert "`sequences`" not in refused(read_events, written(tmp_path / "e.csv", content))
    assert "`sequences`" not in refused(read_items, written(tmp_path / "i.csv", P5))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("u a\n\nu b\n", "line 3, column user_id: 'u': expected one line for each user"),
        ("u a\nv\n", "line 2, column item_ids"),
        ("user_id item_ids\nu a\n", "this file has a header"),
        (b"u a\nv \xff\n", "line 2: not UTF-8"),
    ],
)
def test_invalid_sequences_are_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = written(tmp_path / "s.txt", content)
    assert words in refused(read_events, TableFile(path, sequences=True))
