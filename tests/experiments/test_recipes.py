"""Recipes: from small files in the published forms to tables, splits and dataset folders."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from experiments.recipes.__main__ import main
from experiments.recipes.protocol_a import split_hash
from experiments.recipes.recipe import Counts
from experiments.recipes.sets import RECIPES
from tests.support.datasets import parts_by_ids
from tests.support.originals import (
    Event,
    Rows,
    split_by_hand,
    write_amazon,
    write_movielens_1m,
    write_movielens_100k,
)

Expect = Callable[[str, Counts], None]
REPEAT, LOW, OF_USER_30 = ("1", "6", 1), ("2", "7", 3), "30"


@pytest.fixture
def expect(monkeypatch: pytest.MonkeyPatch) -> Expect:
    """Sets the counts that a recipe expects of both forms, and no hashes."""

    def set_counts(name: str, counts: Counts) -> None:
        small = replace(RECIPES[name], published=counts, republished=counts, hashes=())
        monkeypatch.setitem(RECIPES, name, small)

    return set_counts


def table(path: Path) -> pl.DataFrame:
    """A table that a recipe wrote."""
    return pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False).fill_null("")


def assert_split(output: Path, seed: int, expected: Rows) -> None:
    """The split table and the dataset folder of a seed have the expected parts."""
    split = table(output / "split_A.tsv.gz")
    rows = split.select("user_id", "item_id", f"seed_{seed}").rows()
    assert {(user, item): part for user, item, part in rows} == expected
    assert len(rows) == len(expected)
    dataset = Dataset.load(output / f"seed{seed}")
    assert parts_by_ids(dataset) == {pair: "tve".index(part) for pair, part in expected.items()}


def without_repeat(events: list[Event]) -> list[Event]:
    return [event for event in events if event[:3] != REPEAT]


def test_movielens_100k(tmp_path: Path, expect: Expect, capfd: pytest.CaptureFixture[str]) -> None:
    events = write_movielens_100k(tmp_path)
    expect("ml-100k", Counts(read=40, kept=36, users=6, items=6))
    output = tmp_path / "made"
    main(["ml-100k", "--original", str(tmp_path), "--output", str(output), "--seeds", "0", "4"])
    core = [event for event in without_repeat(events) if event[:3] != LOW and event[0] != OF_USER_30]
    for seed in (0, 4):
        assert_split(output, seed, split_by_hand(core, seed))
    interactions = table(output / "interactions.tsv.gz")
    assert len(interactions) == 39, "without the repeat; the low rating stays in the table"
    assert interactions["user_id"].unique(maintain_order=True).to_list() == [
        "1",
        "2",
        "9",
        "10",
        "21",
        "30",
        "100",
    ]
    tied = interactions.filter(pl.col("user_id") == "10")["item_id"].to_list()
    assert tied == ["6", "3", "1", "5", "2", "4"], "in the order of the file"
    assert table(output / "items.tsv.gz").rows() == [
        ("1", "Misérables, Les (1995)", "1995", "Adventure Animation Children's"),
        ("2", "GoldenEye (1995)", "1995", "Adventure Animation Children's"),
        ("3", "unknown", "", "Adventure Animation Children's"),
        ("4", "Heat (1995)", "1995", "Adventure Animation Children's"),
        ("5", "Fargo (1996)", "1996", "Adventure Animation Children's"),
        ("7", "Big (1988)", "1988", "Adventure Animation Children's"),
    ]
    printed = capfd.readouterr().out
    assert "MovieLens 100K, published files: 40 events read, 36 kept of 6 users and 6 items\n" in printed
    split = table(output / "split_A.tsv.gz")
    assert f"split of seed 4: SHA-256 {split_hash(split, 4)}\n" in printed


def test_movielens_1m_from_its_zip_file(tmp_path: Path, expect: Expect) -> None:
    events = write_movielens_1m(tmp_path)
    expect("ml-1m", Counts(read=40, kept=39, users=7, items=7))
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for name in ("ratings.dat", "movies.dat"):
            archive.write(tmp_path / name, f"ml-1m/{name}")
        archive.writestr("__MACOSX/ml-1m/._ratings.dat", b"\x00")
    output = tmp_path / "made"
    main(["ml-1m", "--original", str(tmp_path / "ml-1m.zip"), "--output", str(output), "--seeds", "1"])
    assert_split(output, 1, split_by_hand(without_repeat(events), 1))
    assert {part for (user, _), part in split_by_hand(events, 1).items() if user == OF_USER_30} == {"t"}
    items = table(output / "items.tsv.gz")
    assert items.row(1) == ("2", "Amélie: Le Fabuleux destin (2001)", "Action, Sci-Fi")
    interactions = table(output / "interactions.tsv.gz")
    assert interactions.columns == ["user_id", "item_id", "rating", "timestamp", "position"]
    positions = interactions.filter(pl.col("user_id") == "2")["position"].to_list()
    assert positions == list(map(str, range(7)))


def test_beauty_has_titles_and_the_order_of_the_file(tmp_path: Path, expect: Expect) -> None:
    events = write_amazon(tmp_path, "Beauty")
    expect("beauty", Counts(read=20, kept=20, users=4, items=5))
    output = tmp_path / "made"
    main(["beauty", "--original", str(tmp_path), "--output", str(output), "--seeds", "2"])
    assert_split(output, 2, split_by_hand(events, 2))
    interactions = table(output / "interactions.tsv.gz")
    assert interactions["user_id"].unique(maintain_order=True).to_list() == ["A100", "A21", "A30", "A4"]
    tied = interactions.filter(pl.col("user_id") == "A30")["item_id"].to_list()
    assert tied == ["B1", "B2", "B3", "B4", "B5"]
    assert "review_text" not in interactions.columns
    rows = [("B1", "Kid's brush"), ("B2", 'Comb, 5"'), ("B5", "Soap for men"), ("B3", "")]
    assert table(output / "items.tsv.gz").rows() == rows
    dataset = Dataset.load(output / "seed2")
    assert (dataset.n_users, dataset.n_items, len(dataset.interactions)) == (4, 5, 20)


def test_musical_instruments_have_reviews_and_no_titles_without_metadata(
    tmp_path: Path, expect: Expect
) -> None:
    events = write_amazon(tmp_path, "Musical_Instruments", meta=False)
    expect("musical", Counts(read=20, kept=20, users=4, items=5))
    output = tmp_path / "made"
    main(["musical", "--original", str(tmp_path), "--output", str(output), "--seeds", "0"])
    assert_split(output, 0, split_by_hand(events, 0))
    assert table(output / "interactions.tsv.gz")["review_text"][0] == 'A100 says "good": of B3'
    assert table(output / "items.tsv.gz").rows() == [(f"B{item}", "", "") for item in range(1, 6)]


def test_tables_that_a_recipe_wrote_give_the_same_folder(tmp_path: Path, expect: Expect) -> None:
    """As the republished tables do; an earlier output is replaced."""
    write_movielens_100k(tmp_path)
    expect("ml-100k", Counts(read=40, kept=36, users=6, items=6))
    first, second = tmp_path / "first", tmp_path / "second"
    main(["ml-100k", "--original", str(tmp_path), "--output", str(first), "--seeds", "0"])
    expect("ml-100k", Counts(read=39, kept=36, users=6, items=6))
    for _ in range(2):
        main(["ml-100k", "--original", str(first), "--output", str(second), "--seeds", "0"])
    names = [
        "interactions.tsv.gz",
        "items.tsv.gz",
        "split_A.tsv.gz",
        "seed0/events.parquet",
        "seed0/items.parquet",
    ]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    shutil.rmtree(first)
    assert sorted(path.name for path in second.iterdir()) == [
        *("interactions.tsv.gz", "items.tsv.gz", "manifest.json", "recipe.json", "seed0", "split_A.tsv.gz")
    ]
