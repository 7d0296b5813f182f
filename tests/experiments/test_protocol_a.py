"""Protocol A gives the split files of the shared sets, and its hash is that of the pages."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.readers.tables import read_events, read_items
from experiments.recipes.protocol_a import PAIR, ordered_events, split_hash, split_parts
from experiments.recipes.recipe import EVENTS, ITEMS
from experiments.recipes.sets import RECIPES

SHARED_FOLDERS = {
    "ml-100k": "ml-100k",
    "ml-1m": "srb-movielens-1m",
    "beauty": "amazon-beauty-p5",
    "musical": "amazon-musical-5core",
}
PAGES = {
    "ml-100k": "movielens-100k.md",
    "ml-1m": "movielens-1m.md",
    "beauty": "amazon-beauty.md",
    "musical": "amazon-musical-instruments.md",
}
DATASETS = Path(__file__).parents[2] / "datasets"


@pytest.mark.parametrize("name", RECIPES)
def test_the_split_files_of_the_shared_sets(shared: Path, name: str) -> None:
    """Every column equals that of split_A; the first three have the hashes of the recipe."""
    recipe, folder = RECIPES[name], shared / "data" / SHARED_FOLDERS[name]
    events, items = recipe.read(folder)
    for table, whole in (
        (events, read_events(folder / f"{EVENTS}.gz")),
        (items, read_items(folder / f"{ITEMS}.gz")),
    ):
        assert set(table.columns) == set(whole.columns), "all that `prepare` reads is kept"
        assert table.equals(whole.select(table.columns))
    kept = recipe.kept(recipe.ordered(events))
    expected = pl.read_csv(folder / "split_A.tsv.gz", separator="\t", quote_char=None, infer_schema=False)
    seeds = range(len(expected.columns) - 2)
    split = kept.select(PAIR).with_columns(split_parts(kept, seed) for seed in seeds)
    assert split.columns == expected.columns
    assert split.sort(PAIR).equals(expected.sort(PAIR))
    assert tuple(split_hash(split, seed) for seed in range(3)) == recipe.hashes


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_of_a_set_has_its_command_and_its_known_results(name: str) -> None:
    """Hashes stand under the command whose split they are known to be."""
    recipe, page = RECIPES[name], (DATASETS / PAGES[name]).read_text()
    assert f"({PAGES[name]})" in (DATASETS / "README.md").read_text()
    assert f"python -m experiments.recipes {name} --original " in page
    assert f"python -m experiments.recipes {name} --original ../shared/data/{SHARED_FOLDERS[name]} " in page
    for counts in (recipe.published, recipe.republished):
        assert f"{counts.read:,} | {counts.kept:,} | {counts.users:,} | {counts.items:,} |" in page
    assert all(sha256 in page for sha256 in recipe.hashes)


def test_order_of_users_and_of_ties() -> None:
    rows = [("10", "a", 5), ("9", "b", 7), ("9", "c", None), ("10", "d", 5), ("9", "b", 6), ("9", "a", 7)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert ordered_events(events)["item_id"].to_list() == ["c", "b", "a", "a", "d"]
    texts = events.with_columns(user_id="u" + pl.col("user_id"))
    assert ordered_events(texts)["user_id"].to_list() == ["u10", "u10", "u9", "u9", "u9"]
    assert ordered_events(events.with_columns(position=pl.Series([1, 0, 2, 0, 3, 1])))[
        "item_id"
    ].to_list() == [*("b", "a", "c", "d", "a")]


def test_the_hash_does_not_depend_on_the_order_of_rows() -> None:
    split = pl.DataFrame({"user_id": ["2", "10"], "item_id": ["a", "b"], "seed_0": ["t", "e"]})
    # sha256sum of the lines 10 b e and 2 a t, with tabs
    assert split_hash(split, 0) == split_hash(split.reverse(), 0)
    assert split_hash(split, 0) == "55127e492816262db32250951e4d62b29ff9748f58c55f5d90581f544338b1bc"
