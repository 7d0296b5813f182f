"""Missing values: one rule for every reader and every kind of column."""

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec.data.readers.missing import is_missing
from cllm4rec.data.readers.tables import read_event_table, read_events, read_item_table, read_items
from tests.support.tables import json_lines, written

NAN = float("nan")
MISSING = [None, NAN, np.nan, np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), decimal.Decimal("NaN")]


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_what_is_missing(value: Any) -> None:
    assert is_missing(value)
    of_polars, of_pandas = pl.Series([value, "a"], dtype=pl.Object), pd.Series([value, "a"], dtype=object)
    for frame, cells in ((pl.DataFrame, of_polars), (pd.DataFrame, of_pandas)):
        table = frame({"item_id": ["x", "y"], "title": cells, "brand": cells, "year": cells})
        assert read_item_table(table).frame.rows() == [("x", "", "", ""), ("y", "a", "a", "a")]


@pytest.mark.parametrize("value", [0, 0.0, "", "nan", False, "None", [], datetime.date(2024, 1, 1)], ids=repr)
def test_what_is_not_missing(value: Any) -> None:
    assert not is_missing(value)


# Items with and without title, year and categories; a category is missing in a list.
RECORDS = [
    {"item_id": "a", "title": "Real", "year": 1999, "categories": ["Rock", NAN, "Pop"]},
    {"item_id": "b", "title": NAN, "year": NAN, "categories": NAN},
    {"item_id": "c", "title": None, "year": None, "categories": [None]},
]
EXPECTED = [("a", "Real", "Rock, Pop", "1999"), ("b", "", "", ""), ("c", "", "", "")]
COLUMNS: dict[str, list[Any]] = {
    "item_id": ["a", "b", "c"],
    "title": ["Real", None, None],
    "year": [1999.0, NAN, None],
    "categories": [["Rock", None, "Pop"], None, [None]],
}


@pytest.mark.parametrize("kind", ["lines", "array", "parquet"])
def test_a_missing_value_of_a_file_is_empty_and_whole_numbers_stay_whole(kind: str, tmp_path: Path) -> None:
    path = tmp_path / {"lines": "i.jsonl", "array": "i.json", "parquet": "i.parquet"}[kind]
    if kind == "parquet":
        pl.DataFrame(COLUMNS).write_parquet(path)
    else:
        written(path, json_lines(*RECORDS) if kind == "lines" else json.dumps(RECORDS))
    assert read_items(path).rows() == EXPECTED


FRAMES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(RECORDS),
    "pandas of floats": lambda: pd.DataFrame(COLUMNS),
    "pandas, arrays in cells": lambda: pd.DataFrame(
        COLUMNS | {"categories": [np.array(["Rock", None, "Pop"], dtype=object), None, np.array([NAN])]}
    ),
    "pandas nullable": lambda: pd.DataFrame(
        COLUMNS
        | {"title": pd.array(COLUMNS["title"], "string"), "year": pd.array([1999, None, None], "Int64")}
    ),
    "pandas on Arrow": lambda: pd.DataFrame(
        COLUMNS | {"year": pd.Series([1999.0, None, None], dtype=pd.ArrowDtype(pa.float64()))}
    ),
    "pandas category": lambda: pd.DataFrame(COLUMNS | {"title": pd.Categorical(COLUMNS["title"])}),
    "pandas, text and floats": lambda: pd.DataFrame(
        COLUMNS | {"year": pd.Series(["1999", NAN, pd.NA], dtype=object)}
    ),
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars objects": lambda: pl.DataFrame(
        {
            name: pl.Series(cells, dtype=pl.Object) if name != "item_id" else cells
            for name, cells in (COLUMNS | {"year": [1999, NAN, pd.NaT]}).items()
        }
    ),
    "polars decimal": lambda: pl.DataFrame(COLUMNS).with_columns(
        year=pl.Series([decimal.Decimal("1999.00"), None, None], dtype=pl.Decimal(10, 2))
    ),
    "arrow": lambda: pa.table(COLUMNS),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_missing_value_of_a_frame_is_empty_and_whole_numbers_stay_whole(kind: str) -> None:
    rows = read_item_table(FRAMES[kind]()).frame.select("item_id", "title", "categories", "year").rows()
    assert rows == EXPECTED


def test_whole_numbers_among_fractions_and_in_lists_stay_whole() -> None:
    frame = pl.DataFrame(
        {
            "item_id": [1, 2, 3],
            "year": [1999.0, 2000.5, NAN],
            "categories": [[1.0, NAN], [2.5], None],
            "brand": ["1.0", "x", None],
        }
    )
    expected = [(1, "1", "1.0", "1999"), (2, "2.5", "x", "2000.5"), (3, "", "", "")]
    assert read_item_table(frame).frame.rows() == expected


def test_a_year_that_pandas_wrote_as_a_float_is_a_whole_number(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    frame = pd.DataFrame({"item_id": ["a", "b"], "title": ["1.0", None], "year": [1999, None]})
    frame.to_csv(path, index=False)
    assert path.read_text().splitlines()[1] == "a,1.0,1999.0"
    assert read_items(path).rows() == [("a", "1.0", "1999"), ("b", "", "")]


def test_text_is_text_in_texts_and_ids_and_only_the_null_of_databases_is_missing(tmp_path: Path) -> None:
    words = ["NaN", "nan", "NULL", "None", "NA"]
    path = written(
        tmp_path / "i.tsv", "item_id\ttitle\n" + "".join(f"{word}\t{word}\n" for word in words) + "x\t\\N\n"
    )
    assert read_items(path).rows() == [*((word, word) for word in words), ("x", "")]
    written(path, "item_id\ttitle\n\\N\tT\n")
    with pytest.raises(ValueError, match="line 2, column item_id: .*: expected an id"):
        read_items(path)


WORDS = ["", "nan", "NaN", "-nan", "NULL", "null", "None", "NA", "N/A", "#N/A", "<NA>", "NaT", "\\N", " nan "]


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.jsonl"])
@pytest.mark.parametrize("word", WORDS)
def test_words_for_missing_numbers_are_empty_ratings_times_and_positions(
    word: str, name: str, tmp_path: Path
) -> None:
    columns = ("user_id", "item_id", "rating", "timestamp", "position")
    rows: list[tuple[Any, ...]] = [("u", "a", word, word, word), ("u", "b", "4", "5", "6")]
    if name == "e.jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        lines = [{"e.csv": ",", "e.tsv": "\t"}[name].join(row) for row in [columns, *rows]]
    events = read_events(written(tmp_path / name, "\n".join(lines) + "\n"))
    assert events.rows() == [("u", "a", None, None, None), ("u", "b", 4.0, 5, 6)]


@pytest.mark.parametrize(("frame", "row"), [
    (pl.DataFrame({"user_id": [1.0, NAN], "item_id": [1, 2]}), 2),
    (pd.DataFrame({"user_id": ["a", NAN], "item_id": [1, 2]}), 2),
    (pd.DataFrame({"user_id": pd.Series([1, pd.NA, "x"], dtype=object), "item_id": [1, 2, 3]}), 2),
    (pl.DataFrame({"user_id": pl.Series([pd.NaT, "x"], dtype=pl.Object), "item_id": [1, 2]}), 1),
    (pa.table({"user_id": [1.0, NAN], "item_id": [1, 2]}), 2),
])  # fmt: skip
def test_a_missing_id_is_refused_by_row(frame: Any, row: int) -> None:
    with pytest.raises(ValueError, match=f"the events, row {row}, column user_id: .*: expected an id"):
        read_event_table(frame)


def test_nan_ratings_and_times_of_frames_are_empty() -> None:
    columns: dict[str, list[Any]] = {
        "user_id": [1, 1],
        "item_id": [1, 2],
        "rating": [4.0, NAN],
        "timestamp": [5.0, NAN],
    }
    columns["review_text"] = ["x", None]
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns)):
        assert read_event_table(frame).frame.rows() == [(1, 1, 4.0, 5, "x"), (1, 2, None, None, "")]


@pytest.mark.parametrize(
    ("record", "column"),
    [
        ('{"item_id": 1, "title": Infinity}', "title"),
        ('{"item_id": 1, "year": -Infinity}', "year"),
        ('{"item_id": 1, "categories": ["a", Infinity]}', "categories"),
        ('{"item_id": Infinity, "title": "a"}', "item_id"),
    ],
)
def test_infinity_is_no_text_and_no_id(record: str, column: str, tmp_path: Path) -> None:
    complete = {"item_id": 0, "title": "T", "year": 1, "categories": ["a"]}
    path = written(tmp_path / "i.jsonl", json_lines(complete) + record + "\n")
    with pytest.raises(ValueError, match=f"line 2, column {column}: "):
        read_items(path)


def test_large_whole_numbers_in_a_column_with_nan_stay_exact(tmp_path: Path) -> None:
    large = 2**60 + 1
    complete = {"user_id": large, "item_id": "x", "position": 1}
    incomplete = {"user_id": 5, "item_id": NAN, "position": NAN}
    path = written(tmp_path / "e.jsonl", json_lines(complete, incomplete))
    table = read_event_table(path, drop_incomplete=True)
    assert table.frame.rows() == [(large, "x", 1)]
    users = pl.Series([str(10**30), "7"]).cast(pl.Decimal(38, 0))
    decimals = pl.DataFrame({"user_id": users, "item_id": [1, 2]})
    assert read_event_table(decimals).frame["user_id"].to_list() == [str(10**30), "7"]
