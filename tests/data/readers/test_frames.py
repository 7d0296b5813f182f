"""Tables in memory: pandas, Polars and Arrow."""

import datetime
import decimal
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec.data.dataset import Dataset
from tests.support.tables import refused

CELLS = {
    "userId": [7, 7, 8, 8, 8],
    "asin": ["a", "007", "a", "é", "x y"],
    "overall": [4.0, None, 3.5, 1.0, 5.0],
    "when": [datetime.datetime(2024, 1, 31, 10, 0, second) for second in range(5)],
    "review": ["good", None, "", "so so", "fine"],
}
NAMED = {**{name: cells for name, cells in CELLS.items() if name != "when"}, "time": CELLS["when"]}


@pytest.mark.parametrize("kind", ["pandas", "pandas object", "polars", "lazy", "arrow", "batch"])
def test_frames_of_every_library_give_the_same_dataset(kind: str) -> None:
    expected = Dataset.from_frame(pl.DataFrame(NAMED), split="none")
    frame = {
        "pandas": lambda: pd.DataFrame(NAMED),
        "pandas object": lambda: pd.DataFrame(
            {name: pd.Series(cells, dtype=object) for name, cells in NAMED.items()}
        ),
        "polars": lambda: pl.DataFrame(NAMED),
        "lazy": lambda: pl.LazyFrame(NAMED),
        "arrow": lambda: pa.table(NAMED),
        "batch": lambda: pa.RecordBatch.from_pydict(NAMED),
    }[kind]()
    for dataset in (Dataset.from_frame(frame, split="none"), Dataset.from_frame(frame)):
        assert dataset.fingerprint == expected.fingerprint
        assert dataset.users.schema["user_id"] == pl.Int64
        assert dataset.interactions.times.min() == 1706695200


def test_pandas_does_not_need_arrow() -> None:
    code = """
import sys
sys.modules["pyarrow"] = None
import pandas as pd
from cllm4rec.data.dataset import Dataset
frame = pd.DataFrame({"user_id": ["a", "b", "b"], "item_id": [1, 2, 3], "rating": [1.0, None, 2]})
frame["review"] = ["x", None, "y"]
frame["timestamp"] = pd.to_datetime(["2024-01-31", None, "2024-02-01"])
items = pd.DataFrame({"item_id": [1, 2, 3], "title": ["One", None, "Three"]})
events = Dataset.from_frame(frame, items).interactions
assert sorted(events.times) == [-1, 1706659200, 1706745600], events.times
assert sorted(events.reviews) == ["", "x", "y"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_whole_floats_of_pandas_are_whole_ids() -> None:
    frame = pd.DataFrame(
        {"user_id": [1.0, 2.0], "item_id": pd.Series([1, "x"], dtype=object), "when": pd.NaT}
    )
    dataset = Dataset.from_frame(frame)
    assert sorted(dataset.user_ids.ids) == [1, 2]
    assert sorted(dataset.item_ids.ids) == ["1", "x"]
    categories = pd.DataFrame(
        {"user_id": pd.Categorical(["a", "b"]), "item_id": pd.array([1, 2], dtype="Int64")}
    )
    assert sorted(Dataset.from_frame(categories).user_ids.ids) == ["a", "b"]


def test_numbers_of_numpy_in_a_pandas_column_are_numbers() -> None:
    frame = pd.DataFrame({"user_id": pd.Series([np.int64(3), np.int64(4)], dtype=object), "item_id": [1, 2]})
    assert sorted(Dataset.from_frame(frame).user_ids.ids) == [3, 4]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pd.DataFrame({"user_id": [1, None], "item_id": [1, 2]}),
            "the events, row 2, column user_id: an empty cell: expected an id",
        ),
        (
            pd.DataFrame({"user_id": [1, 1.5], "item_id": [1, 2]}),
            "the events, row 2, column user_id: 1.5: expected text or a whole number",
        ),
        (pd.DataFrame({"user_id": [True], "item_id": [1]}), "the events, row 1, column user_id: True"),
        (
            pl.DataFrame({"user_id": [decimal.Decimal("1.5")], "item_id": [1]}),
            "the events, row 1, column user_id",
        ),
        (pl.DataFrame({"user_id": [[1]], "item_id": [1]}), "the events, row 1, column user_id: [1]"),
        (
            pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [float("inf")]}),
            "the events, row 1, column rating: inf",
        ),
        (
            pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [datetime.date(2024, 1, 1)]}),
            "the events, row 1, column rating",
        ),
        (pa.table({"user": ["a"], "thing": ["b"]}), "the events: no column for item_id"),
        (pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"]), "two columns item_id"),
        ([("a", "b")], "expected a pandas, Polars or Arrow table, not list"),
        (None, "not NoneType"),
    ],
)
def test_frames_are_checked_as_files_are(frame: Any, words: str) -> None:
    assert words in refused(Dataset.from_frame, frame)


def test_tables_of_items_and_users_are_checked_too() -> None:
    events = pl.DataFrame({"user_id": ["a"], "item_id": ["x"]})
    items = pd.DataFrame({"asin": ["x", "y"], "name": ["Title", None], "categories": [["A", "B"], None]})
    assert Dataset.from_frame(events, items).item_texts == {"title": ["Title"], "categories": ["A, B"]}
    assert "the items, row 2, column asin" in refused(
        Dataset.from_frame, events, pd.DataFrame({"asin": ["x", None]})
    )
    assert "the users: no column for user_id" in refused(
        Dataset.from_frame, events, None, pl.DataFrame({"x": [1]})
    )


def test_a_missing_id_of_a_frame_is_refused_with_advice_for_every_call() -> None:
    frame = pl.DataFrame({"user_id": ["u", None], "item_id": ["a", "b"], "note": [1, 2]})
    dataset = Dataset.from_frame(frame.head(1))
    words = "expected an id: leave such rows out (`drop_incomplete` does so)"
    for call in (Dataset.from_frame, dataset.with_histories):
        assert words in refused(call, frame)
    assert dataset.description is None
