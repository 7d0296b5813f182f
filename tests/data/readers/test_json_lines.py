"""JSON: a record a line, one array of records, one object keyed by id."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_events, read_items, read_users
from tests.support.tables import json_lines, refused, written


def test_one_json_array_is_read_as_lines_are(tmp_path: Path) -> None:
    records = [{"user_id": 1, "item_id": 2, "rating": 3}, {"user_id": 4, "item_id": 5}]
    array = read_events(written(tmp_path / "a.json", " " + json.dumps(records, indent=1)))
    assert array.equals(read_events(written(tmp_path / "b.json", json_lines(*records))))
    assert "row 2, column rating: 'x'" in refused(
        read_events, written(tmp_path / "a.json", json.dumps([records[0], {**records[1], "rating": "x"}]))
    )
    assert "row 2: 7: expected a JSON object" in refused(
        read_events, written(tmp_path / "a.json", json.dumps([records[0], 7]))
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"user_id": 1, "item_id"', "cannot be read as JSON"),
        ('{"user_id": 1, "item_id": 2} {}', "cannot be read as JSON"),
        ("{'user_id': 1, 'item_id': open('x')}", "cannot be read as JSON"),
        ("{" * 5000, "cannot be read as JSON"),
        ('{"a":' * 100_000, "cannot be read as JSON"),
        ("7", "expected a JSON object"),
        ('"x"', "expected a JSON object"),
        ("null", "expected a JSON object"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path / "e.jsonl", f'\n{{"user_id": 1, "item_id": 2}}\n\n{line}\n')
    assert f"{path}, line 4: " in refused(read_events, path)
    assert words in refused(read_events, path)


def test_a_cell_of_a_json_line_is_named_by_its_line(tmp_path: Path) -> None:
    records = [json.dumps({"user_id": i, "item_id": i, "rating": 4}) for i in range(5)]
    path = written(
        tmp_path / "e.jsonl",
        "\n".join(["", *records[:2], "", "", *records[2:4], records[4].replace("4}", '"x"}')]) + "\n",
    )
    assert f"{path}, line 8, column rating: 'x'" in refused(read_events, path)


@pytest.mark.parametrize("blank", [0, 1, 2])
def test_a_record_below_a_blank_line_is_named_by_its_line(blank: int, tmp_path: Path) -> None:
    lines = ['{"user_id": "u", "item_id": "a"}', '{"user_id": "u", "item_id": ""}']
    lines.insert(blank, "")
    (tmp_path / "e.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"line {2 if blank == 2 else 3}, column item_id"):
        read_events(tmp_path / "e.jsonl")


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([7, 8, 900], [7, 8, 900]),
        ([7, "7", "007"], ["7", "7", "007"]),  # mixed: 7 and "7" are one id
        ([7.0, 8], [7, 8]),
        ([7, 2**70], ["7", str(2**70)]),
        ([7.0, "x"], ["7", "x"]),
    ],
)
def test_ids_of_json_are_whole_numbers_if_all_are(
    tmp_path: Path, values: list[object], ids: list[object]
) -> None:
    path = written(
        tmp_path / "e.jsonl", json_lines(*({"user_id": value, "item_id": "x"} for value in values))
    )
    assert read_events(path)["user_id"].to_list() == ids


@pytest.mark.parametrize("n", [60_000])
def test_columns_of_several_chunks_are_one_column(tmp_path: Path, n: int) -> None:
    lines = [
        json.dumps({"user_id": i, "item_id": i, "rating": None if i < n // 2 else 4.5}) for i in range(n)
    ]
    frame = read_events(written(tmp_path / "e.jsonl", "\n".join(lines)))
    assert (
        frame["user_id"].dtype,
        frame["user_id"][-1],
        frame["rating"][-1],
        frame["rating"].null_count(),
    ) == (
        pl.Int64,
        n - 1,
        4.5,
        n // 2,
    )
    lines[-1] = json.dumps({"user_id": "last", "item_id": 1.0})
    mixed = read_events(written(tmp_path / "e.jsonl", "\n".join(lines)))
    assert (mixed["user_id"][0], mixed["user_id"][-1], mixed["item_id"].dtype) == ("0", "last", pl.Int64)


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, 1.5, "NaN-as-number", "\ud800"])
def test_ids_that_are_neither_text_nor_whole_numbers_are_refused(tmp_path: Path, value: object) -> None:
    line = json.dumps({"user_id": 2, "item_id": value}).replace('"NaN-as-number"', "NaN")
    path = written(tmp_path / "e.jsonl", json_lines({"user_id": 1, "item_id": 3}) + line + "\n")
    assert f"{path}, line 2, column item_id: " in refused(read_events, path)


def test_texts_that_are_records_are_refused_and_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "i.jsonl", '{"item_id": 1, "title": "a\\ud83d"}\n{"item_id": 2, "title": 7}\n')
    assert read_items(path)["title"].to_list() == ["a?", "7"]
    path = written(
        tmp_path / "i.jsonl", '{"item_id": 1, "title": "a"}\n{"item_id": 2, "title": {"en": "b"}}\n'
    )
    assert f"{path}, line 2, column title: " in refused(read_items, path)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_object_keyed_by_id_is_a_table(tmp_path: Path, indent: int | None) -> None:
    def keyed(content: Any) -> Path:
        return written(tmp_path / "k.json", json.dumps(content, indent=indent))

    items = {"0": {"title": "One"}, "007": {"title": "Two", "categories": ["a", "b"]}}
    assert read_items(keyed(items)).rows() == [("0", "One", ""), ("007", "Two", "a, b")]
    assert read_users(keyed({"u": {"biography": "likes tea"}})).rows() == [("u", "likes tea")]
    sequences = read_events(keyed({"u1": ["i2", "i1"], "u2": [3]}))
    assert sequences.select("user_id", "item_id", "position").rows() == [
        ("u1", "i2", 0),
        ("u1", "i1", 1),
        ("u2", "3", 0),
    ]
    by_row = {"0": {"user_id": "u", "item_id": "a"}, "1": {"user_id": "v", "item_id": "a"}}
    assert read_events(keyed(by_row)).rows() == [("u", "a"), ("v", "a")]
    assert read_items(keyed({"a": {"item_id": "a", "title": "A"}})).rows() == [("a", "A")]
    assert read_events(keyed({"user_id": "u", "item_id": "a"})).rows() == [("u", "a")]


def test_items_and_sequences_of_two_json_objects_share_ids(tmp_path: Path) -> None:
    events = written(tmp_path / "Games.inter.json", json.dumps({"0": [0, 1], "1": [1, 0]}))
    items = written(
        tmp_path / "Games.item.json", json.dumps({"0": {"title": "Chess"}, "1": {"title": "Go"}}, indent=4)
    )
    dataset = Dataset.from_frame(events, items, split="none")
    assert dict(zip(dataset.items["item_id"], dataset.item_texts["title"], strict=True)) == {
        "0": "Chess",
        "1": "Go",
    }


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (read_items, '{"0": {"title": "a"}, "1": "x"}', "key '1': 'x': expected a record, as under key '0'"),
        (read_items, '{"0": ["a"]}', "key '0': ['a']: expected a record"),
        (read_items, '{"0": {"title": "a"},\n "0": {"title": "b"}}', "key '0' occurs twice"),
        (read_items, '{"B": {"asin": "C"}}', "key 'B': its record has another id, 'C'"),
        (read_items, '{"a": {"title": "x"},\n "b": {"title": {"en": "y"}}}', "key 'b', column title"),
        (read_events, '{"u": ["a"], "v": [["b"]]}', "key 'v': [['b']]: expected a list of item ids"),
        (read_events, '{"data": [{"user_id": 1}]}', "key 'data'"),
        (read_events, '{"u": null, "v": ["a"]}', "key 'u': None: expected a record or a list"),
        (read_events, '{"user_id": ["u"], "item_id": ["a"]}', "a JSON object of columns"),
        (read_events, '{"user_id": {"0": "u"}, "item_id": {"0": "a"}}', "orient='records'"),
        (read_items, '{"0": {"title": "One"},\n "1": {"title" "Two"}}', "line 2: cannot be read as JSON"),
        (read_items, '{"0": ' + "[" * 100_000, "cannot be read as JSON: maximum recursion depth"),
        (read_split_table, '{"u": {"item_id": "a", "seed_0": "t"}}', "no column for user_id"),
    ],
)
def test_a_json_object_that_is_no_table_is_refused(
    tmp_path: Path, read: Callable[..., Any], content: str, words: str
) -> None:
    path = written(tmp_path / "k.json", content)
    assert words in refused(read, path)
    assert str(path) in refused(read, path)
