"""Every set of the shared data goes through prepare and comes out with the counts that its README states."""

import json

import numpy as np
import polars as pl
import pytest

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset

SETS = {  # folder -> users, items, events, titles
    "amazon-beauty-p5": (22_363, 12_101, 198_502, 12_094),
    "ml-100k": (943, 1_682, 100_000, 1_682),
    "amazon-musical-5core": (1_429, 900, 10_261, 0),
    "srb-movielens-1m": (6_040, 3_416, 999_611, 3_416),
}


def prepared(folder, output, *flags, interactions="interactions.tsv.gz"):
    tables = ["--interactions", str(folder / interactions), "--items", str(folder / "items.tsv.gz")]
    prepare.main([*tables, "--output", str(output), *map(str, flags)])
    return Dataset.load(output)


def counts(dataset):
    return dataset.n_users, dataset.n_items, len(dataset.interactions)


def is_protocol_a(dataset):
    """Of each user n events, max(1, round(0.1 n)) are validation and as many test; none of a user with fewer than three."""
    n = np.diff(dataset.interactions.indptr)
    expected = np.where(n < 3, 0, np.maximum(1, np.rint(0.1 * n))).astype(int)
    held = [np.bincount(part.interactions.users, minlength=dataset.n_users) for part in (dataset.validation, dataset.test)]
    return all((one == expected).all() for one in held)


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_its_known_size_and_its_split(shared, tmp_path, name):
    """The split file gives each event that protocol A keeps a part; ml-100k and the musical set are filtered by it."""
    folder = shared / "data" / name
    *size, titles = SETS[name]
    filtered = {"ml-100k": (938, 1_008, 54_413)}.get(name)
    dataset = prepared(folder, tmp_path / "data", "--split", folder / "split_A.tsv.gz")
    assert counts(dataset) == (filtered or tuple(size))
    assert is_protocol_a(dataset)
    if filtered is None:
        assert dataset.about["texts"]["title"] == titles


@pytest.mark.parametrize("name", ["amazon-beauty-p5", "ml-100k", "amazon-musical-5core"])
def test_the_smaller_sets_prepare_by_every_rule(shared, tmp_path, name):
    *size, titles = SETS[name]
    for split in ("random", "leave-last-out", "time", "none"):
        dataset = prepared(shared / "data" / name, tmp_path / "data", "--split", split)
        assert counts(dataset) == tuple(size)
        assert dataset.about["texts"]["title"] == titles
        held = (len(dataset.validation.interactions), len(dataset.test.interactions))
        if split == "leave-last-out":
            assert held == (size[0], size[0])
        if split == "random":
            assert is_protocol_a(dataset)
        if split == "time":
            assert all(0.08 < n / size[2] < 0.12 for n in held)
    assert dataset.about["tables"]["items"] == {"repeated_rows": 0, "rows_without_events": 0, "without_a_row": 0}


@pytest.mark.parametrize(("name", "size"), [("ml-100k", (938, 1_008, 54_413)), ("amazon-musical-5core", (526, 347, 3_615))])
def test_filtered_as_in_the_papers(shared, tmp_path, name, size):
    dataset = prepared(shared / "data" / name, tmp_path / "data", "--preset", "paper")
    assert counts(dataset) == size
    assert is_protocol_a(dataset)


@pytest.mark.parametrize("name", ["ml-100k", "amazon-musical-5core", "amazon-beauty-p5"])
def test_every_column_of_the_split_files_follows_protocol_a(shared, tmp_path, name):
    path = shared / "data" / name / "split_A.tsv.gz"
    table = pl.read_csv(path, separator="\t", infer_schema=False)
    columns = [column for column in table.columns if column.startswith("seed_")]
    letters = [(pl.col(columns) == letter).sum().name.suffix(letter) for letter in "ve"]
    held = table.group_by("user_id").agg(pl.len(), *letters)
    n = held["len"].to_numpy()
    for column in columns:
        for letter in "ve":
            assert (held[column + letter].to_numpy() == np.maximum(1, np.rint(0.1 * n))).all()


def test_movielens_with_the_held_out_rows_of_llara(shared, tmp_path):
    folder = shared / "data" / "ml-100k"
    dataset = prepared(folder, tmp_path / "data", "--split", folder / "llara_split.tsv.gz")
    rows = pl.read_csv(folder / "llara_split.tsv.gz", separator="\t", infer_schema=False)
    assert dataset.n_users == 943
    users = [len(np.unique(part.interactions.users)) for part in (dataset.train, dataset.validation, dataset.test)]
    assert users == [754, 94, 95]
    held_out_rows_are_there(dataset, rows)
    assert (dataset.interactions.times > 0).all()  # joined on
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["split"]["n_test_rows"] == 95


def test_lastfm_with_the_held_out_rows_of_llara(shared, tmp_path):
    folder = shared / "data" / "lastfm-llara"
    flags = ("--split", folder / "heldout.tsv.gz")
    dataset = prepared(folder, tmp_path / "data", *flags, interactions="train_sequences.tsv.gz")
    rows = pl.read_csv(folder / "heldout.tsv.gz", separator="\t", infer_schema=False)
    assert dataset.n_items == dataset.about["texts"]["title"] == 4_606
    users = [len(np.unique(part.interactions.users)) for part in (dataset.train, dataset.validation, dataset.test)]
    assert users == [976, 122, 122]
    assert dataset.n_users == 976 + 122 + 122
    named = rows.with_columns(user_id=pl.col("split") + "-" + pl.int_range(1, pl.len() + 1).over("split").cast(pl.String))
    held_out_rows_are_there(dataset, named)
    train = pl.read_csv(folder / "train_sequences.tsv.gz", separator="\t", infer_schema=False)
    user = int(dataset.user_ids.index(["2"])[0])
    sequence = train.filter(pl.col("user_id") == "2")["item_ids"][0].split(" ")
    assert dataset.item_ids.names(dataset.train.interactions.history(user)).to_list() == sequence


def held_out_rows_are_there(dataset, rows):
    """Each row of the file is a user whose events are its history, in order, and its target."""
    letter = {"val": 1, "test": 2}
    for row in rows.to_dicts():
        user = int(dataset.user_ids.index([row["user_id"]])[0])
        items = dataset.item_ids.names(dataset.interactions.history(user)).to_list()
        assert items == [*row["history_items"].split(" "), row["target_item"]]
        parts = dataset.part[dataset.interactions.users == user].tolist()
        assert parts == [3] * (len(items) - 1) + [letter[row["split"]]]
