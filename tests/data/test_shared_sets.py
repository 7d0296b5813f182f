"""Public datasets of the shared folder, prepared: their sizes are those of their README."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_events, read_items
from tests.support.datasets import description_of, parts_by_ids, prepared, size

SETS = {  # folder -> users, items, events, titles
    "amazon-beauty-p5": (22_363, 12_101, 198_502, 12_094),
    "ml-100k": (943, 1_682, 100_000, 1_682),
    "amazon-musical-5core": (1_429, 900, 10_261, 0),
    "srb-movielens-1m": (6_040, 3_416, 999_611, 3_416),
}


def prepared_set(folder: Path, output: Path, *flags: object) -> Dataset:
    """The dataset that `prepare` makes of the events and items of a folder."""
    return prepared(folder / "interactions.tsv.gz", output, "--items", folder / "items.tsv.gz", *flags)


def n_users_by_part(dataset: Dataset) -> list[int]:
    """Numbers of users with events in train, validation and test."""
    parts = (dataset.train, dataset.validation, dataset.test)
    return [len(np.unique(part.interactions.users)) for part in parts]


def is_protocol_a(dataset: Dataset) -> bool:
    """Of each user's n events, max(1, round(0.1 n)) are validation and as many test; none if n < 3."""
    n = np.diff(dataset.interactions.indptr)
    expected = np.where(n < 3, 0, np.maximum(1, np.rint(0.1 * n))).astype(int)
    held = [
        np.bincount(part.interactions.users, minlength=dataset.n_users)
        for part in (dataset.validation, dataset.test)
    ]
    return all((counts == expected).all() for counts in held)


def assert_held_out_rows(dataset: Dataset, rows: pl.DataFrame) -> None:
    """Each row of the file is a user whose events are its history, in order, and its target."""
    letter = {"val": 1, "test": 2}
    for row in rows.to_dicts():
        user = int(dataset.user_ids.index([row["user_id"]])[0])
        items = dataset.item_ids.names(dataset.interactions.history(user)).to_list()
        assert items == [*row["history_items"].split(" "), row["target_item"]]
        parts = dataset.part[dataset.interactions.users == user].tolist()
        assert parts == [3] * (len(items) - 1) + [letter[row["split"]]]


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_its_known_size_and_its_split(shared: Path, tmp_path: Path, name: str) -> None:
    """Split files name the events of protocol A: for ml-100k a filtered subset of them."""
    folder = shared / "data" / name
    *size_of_set, titles = SETS[name]
    filtered = {"ml-100k": (938, 1_008, 54_413)}.get(name)
    dataset = prepared_set(folder, tmp_path / "data", "--split", folder / "split_A.tsv.gz")
    assert size(dataset) == (filtered or tuple(size_of_set))
    assert is_protocol_a(dataset)
    if filtered is None:
        assert description_of(dataset).texts["title"] == titles


@pytest.mark.parametrize("name", ["amazon-beauty-p5", "ml-100k", "amazon-musical-5core"])
def test_the_smaller_sets_prepare_by_every_rule(shared: Path, tmp_path: Path, name: str) -> None:
    *size_of_set, titles = SETS[name]
    for split in ("random", "leave-last-out", "time", "none"):
        dataset = prepared_set(shared / "data" / name, tmp_path / "data", "--split", split)
        assert size(dataset) == tuple(size_of_set)
        assert description_of(dataset).texts["title"] == titles
        held = (len(dataset.validation.interactions), len(dataset.test.interactions))
        if split == "leave-last-out":
            assert held == (size_of_set[0], size_of_set[0])
        if split == "random":
            assert is_protocol_a(dataset)
        if split == "time":
            assert all(0.08 < n / size_of_set[2] < 0.12 for n in held)
    unmatched = {"repeated_rows": 0, "rows_without_events": 0, "without_a_row": 0}
    assert asdict(description_of(dataset).tables["items"]) == unmatched


@pytest.mark.parametrize(
    ("name", "expected"), [("ml-100k", (938, 1_008, 54_413)), ("amazon-musical-5core", (526, 347, 3_615))]
)
def test_filtered_as_in_the_papers(
    shared: Path, tmp_path: Path, name: str, expected: tuple[int, int, int]
) -> None:
    dataset = prepared_set(shared / "data" / name, tmp_path / "data", "--preset", "paper")
    assert size(dataset) == expected
    assert is_protocol_a(dataset)


@pytest.mark.parametrize("name", ["ml-100k", "amazon-musical-5core", "amazon-beauty-p5"])
def test_every_column_of_the_split_files_follows_protocol_a(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "data" / name / "split_A.tsv.gz"
    table = pl.read_csv(path, separator="\t", infer_schema=False)
    columns = [column for column in table.columns if column.startswith("seed_")]
    letters = [(pl.col(columns) == letter).sum().name.suffix(letter) for letter in "ve"]
    held = table.group_by("user_id").agg(pl.len(), *letters)
    n = held["len"].to_numpy()
    for column in columns:
        for letter in "ve":
            assert (held[column + letter].to_numpy() == np.maximum(1, np.rint(0.1 * n))).all()


def test_movielens_with_the_held_out_rows_of_llara(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "ml-100k"
    dataset = prepared_set(folder, tmp_path / "data", "--split", folder / "llara_split.tsv.gz")
    rows = pl.read_csv(folder / "llara_split.tsv.gz", separator="\t", infer_schema=False)
    assert dataset.n_users == 943
    assert n_users_by_part(dataset) == [754, 94, 95]
    assert_held_out_rows(dataset, rows)
    assert (dataset.interactions.times > 0).all()  # from the table of events
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["split"]["n_test_rows"] == 95


def test_lastfm_with_the_held_out_rows_of_llara(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "lastfm-llara"
    flags = ("--items", folder / "items.tsv.gz", "--split", folder / "heldout.tsv.gz")
    dataset = prepared(folder / "train_sequences.tsv.gz", tmp_path / "data", *flags)
    rows = pl.read_csv(folder / "heldout.tsv.gz", separator="\t", infer_schema=False)
    assert dataset.n_items == description_of(dataset).texts["title"] == 4_606
    assert n_users_by_part(dataset) == [976, 122, 122]
    assert dataset.n_users == 976 + 122 + 122
    number = pl.int_range(1, pl.len() + 1).over("split").cast(pl.String)
    named = rows.with_columns(user_id=pl.col("split") + "-" + number)
    assert_held_out_rows(dataset, named)
    train = pl.read_csv(folder / "train_sequences.tsv.gz", separator="\t", infer_schema=False)
    user = int(dataset.user_ids.index(["2"])[0])
    sequence = train.filter(pl.col("user_id") == "2")["item_ids"][0].split(" ")
    assert dataset.item_ids.names(dataset.train.interactions.history(user)).to_list() == sequence


def test_movielens_100k_filtered_as_in_the_papers_has_the_known_size(shared: Path) -> None:
    events = read_events(shared / "data" / "ml-100k" / "interactions.tsv.gz")
    items = read_items(shared / "data" / "ml-100k" / "items.tsv.gz")
    dataset = Dataset.from_frame(events, items, split="random", min_rating=4, k_core=5)
    assert size(dataset) == (938, 1_008, 54_413)
    assert description_of(dataset).texts["title"] == 1008
    assert sum(report.events for report in description_of(dataset).rules) == 100_000 - 54_413
    title = dict(zip(dataset.items["item_id"].to_list(), dataset.items["title"].to_list(), strict=True))["1"]
    assert title == "Toy Story (1995)"


def test_movielens_100k_takes_the_parts_of_a_split_file(shared: Path) -> None:
    folder = shared / "data" / "ml-100k"
    events = read_events(folder / "interactions.tsv.gz")
    table = read_split_table(folder / "split_A.tsv.gz").frame
    dataset = Dataset.from_frame(events, min_rating=4, k_core=5, split=table)
    assert size(dataset) == (938, 1_008, 54_413)
    assert description_of(dataset).rules[-1].events == 0
    rows = table.select("user_id", "item_id", "seed_0").rows()
    assert parts_by_ids(dataset) == {(user, item): "tve".index(part) for user, item, part in rows}
