"""Experiments on a folder that a recipe wrote."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.synthetic import taste_world
from cllm4rec.training.run_folder import RunFolder
from experiments import candidates, full_ranking, next_item, ranking_results, tune
from experiments.prepared import prepare_once
from experiments.ranking_results import command, read_lines, write_lines, write_results
from experiments.recipes.__main__ import main as make
from experiments.recipes.recipe import Counts
from experiments.recipes.sets import RECIPES
from experiments.tuning.rows import read_rows
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


def test_full_ranking_has_rows_with_the_settings_that_a_search_chose(data: Path, tmp_path: Path) -> None:
    dataset, tuned, output = data / "seed0", tmp_path / "tuned", tmp_path / "runs"
    budget = tune.Budget(trials=3)
    tune.main(dataset, ["itemknn"], "random", budget, 0, [], tuned)
    full_ranking.main(data, [0], ["popularity", "ItemKNN"], output, tuned=tuned)
    results = json.loads((output / "results.json").read_text())
    assert list(results) == ["popularity/0", "ItemKNN, tuned/0"]
    best = max(read_rows(tuned / "small" / "itemknn.csv"), key=lambda row: float(row["ndcg@100"]))
    recorded = RunFolder.open(output / "seed0" / "itemknn-tuned").description.stages["pretrain"].system
    assert {name: recorded[name] for name in ("neighbours", "shrinkage")} == json.loads(best["values"])
    assert "| ItemKNN, tuned " in (output / "table.md").read_text()
    with pytest.raises(SystemExit, match="none has no trials of these --rows on small: name another"):
        full_ranking.main(data, [0], ["ItemKNN"], output, tuned=tmp_path / "none")
    file = tuned / "small" / "itemknn.csv"
    file.write_text(file.read_text().replace(read_rows(file)[0]["data_sha256"], "0" * 64))
    with pytest.raises(SystemExit, match="itemknn.csv was measured on other data than this set"):
        full_ranking.main(data, [0], ["ItemKNN"], output, tuned=tuned)
    results["popularity/0"]["flags"] = [["--system", "ease"], None]
    (output / "results.json").write_text(json.dumps(results))
    with pytest.raises(SystemExit, match="holds popularity/0 with other settings: name another --output"):
        full_ranking.main(data, [0], ["popularity"], output)


def test_full_ranking_leaves_out_a_row_that_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(full_ranking.ROWS, "EASE", (["--system", "ease", "--regularization", "-1"], None))
    assert full_ranking.main(data, [0], ["EASE", "popularity"], tmp_path / "runs") == ["EASE/0"]
    table = (tmp_path / "runs" / "table.md").read_text()
    assert "| popularity |" in table
    assert "Failed, so that their rows are left out: EASE/0." in table
    monkeypatch.undo()
    assert full_ranking.main(data, [0], ["EASE", "popularity"], tmp_path / "runs") == [], "tried again"


def test_full_ranking_writes_a_line_for_each_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, file = tmp_path / "runs", tmp_path / "results" / "runs.csv"
    file.parent.mkdir()
    file.write_text("set,protocol,row,seed,ndcg@100\nother,A,popularity,0,0.5\nsmall,A,EASE,0,0.1\n")
    for module in (full_ranking, ranking_results):
        monkeypatch.setattr(module, "REFERENCE", "EASE")
    full_ranking.main(data, [0], ["popularity", "EASE"], output)
    write_results(file.parent, data, output)
    other, ease, popularity = read_lines(file)
    assert (other["set"], other["ndcg@100"]) == ("other", "0.5")
    assert (popularity["set"], popularity["row"], popularity["seed"]) == ("small", "popularity", "0")
    run = output / "seed0" / "ease"
    measured = json.loads((run / "test.json").read_text())
    assert float(ease["ndcg@100"]) == pytest.approx(measured["metrics"]["ndcg@100"], rel=1e-5)
    assert float(ease["ndcg@100 low"]) == pytest.approx(measured["intervals"]["ndcg@100"][0], rel=1e-5)
    dataset = RunFolder.open(run).description.dataset
    assert (ease["data_sha256"], ease["split_sha256"]) == (dataset.data_sha256, dataset.split_sha256)
    assert int(ease["model_numbers"]) == 7 * 7
    assert ease["command"] == (
        'cllm4rec pretrain --dataset "$DATASET" --output "$RUN" --system ease && '
        'cllm4rec evaluate --run "$RUN"'
    )
    flags = [["--encoder", "/models/one two", "--epochs", "0"], ["--linear", "none"]]
    assert command(flags, 3) == (
        'cllm4rec pretrain --dataset "$DATASET" --output "$RUN" --encoder "$ENCODER" --epochs 0 --seed 3 && '
        'cllm4rec finetune --run "$RUN" --linear none --seed 3 && cllm4rec evaluate --run "$RUN"'
    )
    ndcg, recall = read_lines(file.with_name("differences.csv"))
    assert (ndcg["row"], ndcg["metric"], ndcg["seeds"]) == ("popularity", "ndcg@100", "0")
    expected = float(ease["ndcg@100"]) - float(popularity["ndcg@100"])
    assert float(ndcg["difference"]) == pytest.approx(expected, abs=1e-5)
    assert float(ndcg["low"]) <= float(ndcg["difference"]) <= float(ndcg["high"])
    assert recall["metric"] == "recall@20"
    slices = [line for line in read_lines(file.with_name("slices.csv")) if line["row"] == "EASE"]
    assert len(slices) == len(measured["slices"]) > 2
    for line, each in zip(slices, measured["slices"], strict=True):
        assert (line["by"], line["lowest"], line["highest"], line["n_users"]) == (
            each["by"],
            *(str(each[name]) for name in ("lowest", "highest", "n_users")),
        )
        assert float(line["ndcg@100"]) == pytest.approx(each["metrics"]["ndcg@100"], rel=1e-5)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match="runs.csv is no table of results: name another folder of results"):
        write_lines(file, [])


def test_differences_are_over_the_seeds_of_two_rows_and_over_those_of_the_table(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking_results, "REFERENCE", "EASE")
    monkeypatch.setattr(ranking_results, "SHOWN", ("EASE", "popularity", "ItemKNN"))
    output, folder = tmp_path / "runs", tmp_path / "results"
    shutil.copytree(data / "seed0", data / "seed1")
    full_ranking.main(data, [0, 1], ["popularity", "EASE"], output)
    full_ranking.main(data, [0], ["ItemKNN"], output)
    write_results(folder, data, output)
    runs = {line["row"]: float(line["ndcg@100"]) for line in read_lines(folder / "runs.csv")}
    found = {
        (line["row"], line["seeds"]): float(line["difference"])
        for line in read_lines(folder / "differences.csv")
        if line["metric"] == "ndcg@100"
    }
    assert list(found) == [("popularity", "0"), ("popularity", "0 1"), ("ItemKNN", "0")]
    for row in ("popularity", "ItemKNN"):  # the two splits are the same
        expected = pytest.approx(runs["EASE"] - runs[row], abs=1e-5)
        assert all(difference == expected for (name, _), difference in found.items() if name == row)


def test_results_need_neither_the_reference_nor_a_row(data: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "runs", tmp_path / "results"
    write_results(folder, data, output)
    assert not folder.exists(), "no row has succeeded"
    full_ranking.main(data, [0], ["popularity"], output)
    write_results(folder, data, output)
    assert [line["row"] for line in read_lines(folder / "runs.csv")] == ["popularity"]
    assert not (folder / "differences.csv").exists()
    lines = read_lines(folder / "slices.csv")
    write_lines(folder / "slices.csv", lines[:1])
    assert read_lines(folder / "slices.csv") == lines[:1], "a run measured anew may have fewer slices"


def test_full_ranking_keeps_rows_of_the_same_data_only(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    full_ranking.main(data, [0], ["popularity"], output)
    moved = data.rename(tmp_path / "moved")
    run = output / "seed0" / "popularity"
    before = run.stat().st_mtime_ns
    full_ranking.main(moved, [0], ["popularity"], output)
    assert run.stat().st_mtime_ns == before, "measured again"
    assert "other code" not in (output / "table.md").read_text()
    results = json.loads((output / "results.json").read_text())
    results["popularity/0"]["code_sha256"] = "0" * 64
    (output / "results.json").write_text(json.dumps(results))
    full_ranking.main(moved, [0], ["popularity"], output)
    assert "other code of the package than the present: popularity." in (output / "table.md").read_text()
    make(["ml-1m", "--original", str(tmp_path), "--output", str(data), "--seeds", "1"])
    (data / "seed1").rename(data / "seed0")
    with pytest.raises(
        SystemExit, match="holds popularity/0, measured on another dataset than .*/small/seed0"
    ):
        full_ranking.main(data, [0], ["popularity"], output)
    assert run.stat().st_mtime_ns == before


def test_next_item_reads_the_tables(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "runs"
    monkeypatch.setitem(
        next_item.ROWS, "ItemKNN, decayed", (["--system", "itemknn", "--decay", "auto"], None)
    )
    next_item.main(data, 0, ["ItemKNN, decayed"], 0, output, [])
    assert "| ItemKNN, decayed |" in (output / "table.md").read_text()
    next_item.main(data, 0, ["ItemKNN, decayed"], 0, output, [])
    with pytest.raises(SystemExit, match="was made with another --shuffle-ties: name another --output"):
        next_item.main(data, 1, ["ItemKNN, decayed"], 0, output, [])


def test_a_dataset_of_other_tables_is_not_used(tmp_path: Path) -> None:
    events, dataset, record = (tmp_path / name for name in ("events.csv", "dataset", "dataset-inputs.json"))
    events.write_text("user_id,item_id\n1,2\n1,3\n")
    prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    before = dataset.stat().st_ino
    prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    assert dataset.stat().st_ino == before, "prepared again"
    events.write_text("user_id,item_id\n1,2\n1,4\n")
    with pytest.raises(SystemExit, match="was made with another --interactions: name another --output"):
        prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    record.unlink()
    with pytest.raises(SystemExit, match="there is no .*dataset-inputs.json"):
        prepare_once(dataset, {"--interactions": events}, {"--split": "none"})
    assert dataset.stat().st_ino == before


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
    tables = {"interactions": data / "interactions.tsv.gz", "items": data / "items.tsv.gz", "split": split}
    options = {"seeds": [0], "draws": 1, "candidates": 3, "epochs": (1, 1), "output": output}
    candidates.main(**tables, **options)
    assert "| RSLLM, C_user " in (output / "table.md").read_text()
    with pytest.raises(SystemExit, match="--items .*absent.tsv: there is no such file"):
        candidates.main(**tables | {"items": tmp_path / "absent.tsv"}, **options)
    (data / "interactions.tsv.gz").write_bytes(b"of another data set")
    with pytest.raises(SystemExit, match="was made with another --interactions"):
        candidates.main(**tables, **options)
