"""Unusual tables that `prepare` reads: odd ids, mixed types, repeats, dates in several forms."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from tests.support.datasets import prepared
from tests.support.tables import EVENTS_CSV, json_lines, written

ODD_CELLS = ["a b", "a,b", 'a"b', '"a"', "'a'", " lead", "trail ", "  ", ""]
ODD_CELLS += ["007", "7", "7.0", "1e3", "0", "-1", "9" * 30, "x" * 5000]
ODD_CELLS += ["NULL", "null", "nan", "NaN", "None", "true", "N/A"]
ODD_CELLS += ["#1", "=1+1", "-", "\\", "a\\nb", "%s", "{}", "../x", "a;b", "a|b", "a::b"]
ODD_CELLS += ["\U0001f600", "e\u0301", "\u00e9", "\u05d0\u05d1", "\u202eabc", "\u2028", "\u00a0x"]
ODD_IDS = [cell for cell in ODD_CELLS if cell.strip()]
CONTROL_IDS = [
    "a\tb",
    "a\nb",
    "a\r\nb",
    "\tx",
    "x\n",
    "a\x00b",
    "a\x1fb",
    "\ufeffx",
]  # of JSON and Parquet only


def test_repeats_items_without_text_and_users_with_one_event_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = written(tmp_path / "e.csv", EVENTS_CSV + "u0,i0,5,900\nu0,i1,5,901\nalone,i0,3,5\n")
    items = written(
        tmp_path / "i.csv", "item_id,title\n" + "".join(f"i{i},{'T' if i else ''}\n" for i in range(5))
    )
    dataset = prepared(events, tmp_path / "data", "--items", items)
    printed = capsys.readouterr().out
    assert "latest of repeated events of a user and an item: dropped 2 events, 0 users, 0 items" in printed
    assert "title: a text for 4 of 5 items" in printed
    assert "items without any text: 1" in printed
    assert "users with fewer than 3 events, who stay whole in train: 1" in printed
    alone = dataset.interactions.users == dataset.user_ids.index(["alone"])[0]
    assert dataset.part[alone].tolist() == [0]


def ids_of(dataset: Dataset) -> tuple[list[object], list[object]]:
    """Sorted user ids and item ids."""
    return sorted(dataset.user_ids.ids.to_list(), key=str), sorted(dataset.item_ids.ids.to_list(), key=str)


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.jsonl", "e.parquet", "e.csv.gz", "e.json"])
def test_odd_ids_come_back_unchanged(tmp_path: Path, name: str) -> None:
    kind = name.removesuffix(".gz").rsplit(".")[-1]
    ids = ODD_IDS if kind in ("csv", "tsv") else ODD_IDS + CONTROL_IDS
    if kind == "csv":
        ids = ids + ["a\nb", "a\tb", "x\n"]
    pairs = [(user, item) for user in ids for item in (ids[0], ids[-1], user)]
    table = pl.DataFrame({"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]})
    path = tmp_path / name
    if kind == "csv":
        quoted = [[cell.replace('"', '""') for cell in pair] for pair in pairs]
        written(path, "user_id,item_id\n" + "".join(f'"{user}","{item}"\n' for user, item in quoted))
    elif kind == "tsv":
        written(path, "\n".join("\t".join(pair) for pair in [("user_id", "item_id"), *pairs]) + "\n")
    elif kind == "parquet":
        table.write_parquet(path)
    else:
        records = [dict(zip(("user_id", "item_id"), pair, strict=True)) for pair in pairs]
        written(path, json.dumps(records) if kind == "json" else json_lines(*records))
    dataset = prepared(path, tmp_path / "data", "--split", "none")
    assert ids_of(dataset) == (sorted(set(ids)), sorted(set(ids)))
    numbers = dataset.user_ids.index(ids)
    assert dataset.user_ids.names(numbers).to_list() == ids


def test_ids_as_python_writes_them_to_csv_come_back(tmp_path: Path) -> None:
    ids = [*ODD_IDS, "a\nb", "a\tb"]
    with (tmp_path / "e.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user_id", "item_id"), *((user, "x") for user in ids)])
    assert ids_of(prepared(tmp_path / "e.csv", tmp_path / "data", "--split", "none"))[0] == sorted(ids)


def test_mixed_types_become_text_and_a_number_and_its_text_are_the_same_id(tmp_path: Path) -> None:
    rows = [{"user_id": 1, "item_id": 1}, {"user_id": "1", "item_id": "x"}, {"user_id": 2.0, "item_id": 2}]
    dataset = prepared(written(tmp_path / "e.jsonl", json_lines(*rows)), tmp_path / "data")
    assert ids_of(dataset) == (["1", "2"], ["1", "2", "x"])


def test_dates_in_several_forms_empty_and_negative_are_ordered(tmp_path: Path) -> None:
    dates = ["1969-12-31 12:00:00", "1970-01-02", "1970-01-03T00:00:00Z"]
    cells = ["", "-86400", *dates, "345600", "432000000000"]
    content = "user_id,item_id,timestamp\n" + "".join(f"ann,i{i},{cell}\n" for i, cell in enumerate(cells))
    dataset = prepared(written(tmp_path / "e.csv", content), tmp_path / "data", "--split", "leave-last-out")
    assert dataset.item_ids.names(dataset.interactions.items).to_list() == [f"i{i}" for i in range(7)]
    assert dataset.interactions.times.tolist() == [-86401, -86400, -43200, 86400, 172800, 345600, 432000000]
    assert dataset.part.tolist() == [0, 0, 0, 0, 0, 1, 2]
