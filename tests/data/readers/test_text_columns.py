"""Texts of items and users: stripped, joined, empty where they are missing."""

from pathlib import Path

import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.tables import read_items, read_users
from tests.support.tables import json_lines, written


def test_a_table_of_items_with_text_ids_meets_events_with_integer_ids() -> None:
    events = pl.DataFrame({"user_id": [1, 2], "item_id": [10, 20]})
    items = pl.DataFrame({"item_id": ["20", "10", "99"], "title": ["Twenty", "Ten", "nobody took it"]})
    dataset = Dataset.from_frame(events, items)
    assert dict(dataset.items.rows()) == {10: "Ten", 20: "Twenty"}


def test_item_texts_are_stripped_empty_where_missing_and_lists_are_joined(tmp_path: Path) -> None:
    texts = {"title": "  Tale ", "categories": ["Books", "Fiction"], "description": []}
    records = [
        {"item_id": "A", "year": 1999, **texts},
        {"item_id": "B", "title": None, "categories": [], "description": ["One", "two"], "year": None},
    ]
    frame = read_items(written(tmp_path / "i.jsonl", json_lines(*records)))
    assert frame.to_dicts() == [
        {"item_id": "A", "title": "Tale", "description": "", "categories": "Books, Fiction", "year": "1999"},
        {"item_id": "B", "title": "", "description": "One two", "categories": "", "year": ""},
    ]


def test_categories_as_lists_of_lists_are_text_too(tmp_path: Path) -> None:
    """The form of Amazon's metadata of 2014: paths through a tree of categories."""
    item = {"asin": "A", "categories": [["Books", "Fiction"], ["Gifts"]]}
    path = written(tmp_path / "i.jsonl", json_lines(item))
    assert read_items(path).rows() == [("A", "Books, Fiction, Gifts")]


def test_user_texts_are_read(tmp_path: Path) -> None:
    frame = read_users(written(tmp_path / "u.csv", "user_id,bio,age\n007, likes tea ,30\n8,,31\n"))
    assert frame.rows(named=True) == [
        {"user_id": "007", "biography": "likes tea"},
        {"user_id": "8", "biography": ""},
    ]
