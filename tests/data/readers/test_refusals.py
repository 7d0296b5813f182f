"""Errors of the readers: one line with file, line, column and value."""

from pathlib import Path

import numpy as np
import pytest

from cllm4rec.data.readers.formats import read_raw
from cllm4rec.data.readers.tables import read_events, read_items
from tests.support.tables import json_lines, refused, written


def test_a_missing_column_is_named_with_what_the_file_has(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "user_id,thing\n1,2\n")
    message = refused(read_events, path)
    assert str(path) in message
    assert "no column for item_id" in message
    assert "user_id, thing" in message


@pytest.mark.parametrize(
    ("column", "cells", "line", "value"),
    [
        ("rating", ["4", "good", "bad"], 3, "'good'"),
        ("rating", ["-inf", "4"], 2, "'-inf'"),
        ("timestamp", ["1", "2", "soon"], 4, "'soon'"),
        ("timestamp", ["2024-01-31", "2024-02-31"], 3, "'2024-02-31'"),
        ("position", ["1", "first"], 3, "'first'"),
    ],
)
def test_a_cell_that_is_no_number_is_named_by_file_line_column_and_value(
    tmp_path: Path, column: str, cells: list[str], line: int, value: str
) -> None:
    rows = "".join(f"1\tx{i}\t{cell}\n" for i, cell in enumerate(cells))
    path = written(tmp_path / "e.tsv", f"user_id\titem_id\t{column}\n" + rows)
    assert f"{path}, line {line}, column {column}: {value}: " in refused(read_events, path)


@pytest.mark.parametrize(
    ("content", "line", "column"), [("1\tx\n\ty\n", 3, "user_id"), ("1\tx\n2\ty\n3\t\n", 4, "item_id")]
)
def test_an_empty_id_is_named_by_line_and_column(
    tmp_path: Path, content: str, line: int, column: str
) -> None:
    path = written(tmp_path / "e.tsv", "user_id\titem_id\n" + content)
    message = refused(read_events, path)
    assert f"{path}, line {line}, column {column}: " in message
    assert "expected an id" in message


def test_an_empty_id_in_quotes_or_as_null_is_refused_too(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", 'user_id,item_id\n"",x\n')
    assert "line 2, column user_id" in refused(read_events, path)
    path = written(
        tmp_path / "e.jsonl", json_lines({"user_id": 1, "item_id": 2}, {"user_id": 1, "item_id": None})
    )
    assert "line 2, column item_id" in refused(read_events, path)
    path = written(tmp_path / "i.tsv", "item_id\ttitle\n\tnameless\n")
    assert "line 2, column item_id" in refused(read_items, path)


@pytest.mark.parametrize("name", ["e.tsv", "e.csv", "e.jsonl", "e.parquet", "e.tsv.gz", "e.jsonl.gz"])
def test_a_file_without_content_is_refused(tmp_path: Path, name: str) -> None:
    assert str(tmp_path / name) in refused(read_events, written(tmp_path / name, ""))


@pytest.mark.parametrize("name", ["e.tsv", "e.tsv.gz"])
def test_a_header_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "user_id\titem_id\n")
    assert "a header and no rows" in refused(read_events, path)


@pytest.mark.parametrize("name", ["e.tsv.gz", "e.csv.gz", "e.jsonl.gz"])
@pytest.mark.parametrize("cut", [0.5, 8])  # half of the file; only the check sum at its end
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, name: str, cut: float) -> None:
    numbers = np.random.default_rng(0).random(4000).tolist()
    if "jsonl" in name:
        content = json_lines(*({"user_id": str(number), "item_id": "x"} for number in numbers))
    else:
        separator = "\t" if "tsv" in name else ","
        content = f"user_id{separator}item_id\n" + "".join(f"{number}{separator}x\n" for number in numbers)
    path = written(tmp_path / name, content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)] if cut < 1 else whole[:-cut])
    assert f"{path}: cannot be read as" in refused(read_events, path)


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    assert "nowhere.tsv: there is no such file" in refused(read_raw, tmp_path / "nowhere.tsv")
    assert "the folder holds no table" in refused(read_raw, tmp_path)
    assert "unknown file format: name it .tsv" in refused(read_raw, written(tmp_path / "e.xlsx", "x"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", "user_id,item_id\n1,2,3\n", "line 2: 3 cells where the header has 2"),
        ("e.csv", b"user_id,item_id\n1,caf\xe9\n", "line 2: not UTF-8 text"),
        ("e.jsonl", '{"user_id": 1, "item_id"\n', "line 1: cannot be read as JSON"),
        ("e.json", '[{"user_id": 1, "item_id": 2}', "cannot be read as one JSON array"),
        ("e.parquet", "user_id,item_id\n1,2\n", "cannot be read as parquet"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = written(tmp_path / name, content)
    error = refused(read_events, path)
    assert message in error
    assert str(path) in error
