"""Experiments on a folder that a recipe wrote."""

import gzip
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.synthetic import taste_world
from experiments import candidates, full_ranking, next_item
from experiments.recipes.__main__ import main as make
from experiments.recipes.recipe import Counts
from experiments.recipes.sets import RECIPES
from tests.support.originals import write_movielens_1m


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the recipe of MovieLens 1M, from small files, with the split of seed 0."""
    write_movielens_1m(tmp_path)
    small = replace(RECIPES["ml-1m"], published=Counts(40, 39, 7, 7), hashes=())
    monkeypatch.setitem(RECIPES, "ml-1m", small)
    make(["ml-1m", "--original", str(tmp_path), "--output", str(tmp_path / "small"), "--seeds", "0"])
    return tmp_path / "small"


def test_full_ranking_reads_the_dataset_folder_of_a_seed(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    full_ranking.main(data, [0], ["popularity", "ItemKNN"], output)
    table = (output / "table.md").read_text()
    assert "| popularity |" in table
    assert "| ItemKNN " in table
    with pytest.raises(SystemExit, match="has no folder seed1: experiments.recipes --seeds makes it"):
        full_ranking.main(data, [0, 1], ["popularity"], output)
    other = tmp_path / "other"
    data.rename(other)
    with pytest.raises(SystemExit, match="holds results of small: name another --output"):
        full_ranking.main(other, [0], ["popularity"], output)


def test_next_item_reads_the_tables(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "runs"
    monkeypatch.setitem(
        next_item.ROWS, "ItemKNN, decayed", (["--system", "itemknn", "--decay", "auto"], None)
    )
    next_item.main(data, 0, ["ItemKNN, decayed"], 0, output, [])
    assert "| ItemKNN, decayed |" in (output / "table.md").read_text()


@pytest.mark.slow
def test_candidates_reads_tables_and_a_split_file(tmp_path: Path) -> None:
    world, data, output = (
        taste_world(0, n_users=20, n_items=40, n_events=6),
        tmp_path / "data",
        tmp_path / "runs",
    )
    data.mkdir()
    for name, table in (("interactions", world.events), ("items", world.items)):
        text = table.write_csv(separator="\t", quote_style="never")
        (data / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    users, items = (world.events[name].unique(maintain_order=True) for name in ("user_id", "item_id"))
    rows = [
        (part, users[index], " ".join(items[index : index + 3]), items[index + 3])
        for index, part in enumerate(["val", "test", "test"])
    ]
    columns = ["split", "user_id", "history_items", "target_item"]
    split = tmp_path / "held_out.tsv"
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(split, separator="\t")
    candidates.main(data, split, [0], draws=1, candidates=3, epochs=(1, 1), output=output)
    assert "| RSLLM, C_user " in (output / "table.md").read_text()
    with pytest.raises(SystemExit, match="has neither interactions.tsv.gz nor train_sequences.tsv.gz"):
        candidates.main(tmp_path, split, [0], draws=1, candidates=3, epochs=(1, 1), output=output)
