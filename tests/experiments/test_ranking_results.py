"""The CSV files of `experiments.full_ranking`: which differences they hold, and who writes them when."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from cllm4rec.training.run_folder import RunFolder
from experiments import full_ranking, ranking_results
from experiments.protocols import PROTOCOLS
from experiments.ranking_results import model_numbers, read_lines, texts, write_lines, write_results
from tests.support.folders import lock_holder

pytestmark = pytest.mark.usefixtures("commands_here")


def test_cells_have_six_digits_whatever_kind_of_number_they_hold() -> None:
    cells = {"python": 1 / 3, "numpy": np.float64(1 / 3), "whole": 1_234_567, "unknown": None, "text": "a"}
    expected = {"python": "0.333333", "numpy": "0.333333", "whole": "1234567", "unknown": "", "text": "a"}
    assert texts(cells) == expected


def test_columns_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("set,protocol,row,seed,recall,ndcg\nsmall,A,EASE,0,0.1,0.2\n")
    new = {"set": "small", "protocol": "A", "row": "EASE", "seed": "0", "ndcg": "0.4", "recall": "0.3"}
    write_lines(tmp_path / "runs.csv", [new | {"added": "1"}])
    text = (tmp_path / "runs.csv").read_text()
    assert text == "set,protocol,row,seed,recall,ndcg,added\nsmall,A,EASE,0,0.3,0.4,1\n"


def test_differences_are_over_the_seeds_of_two_rows_and_over_those_of_the_table(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(PROTOCOLS["A"], reference="EASE", shown=("EASE", "popularity", "ItemKNN"))
    monkeypatch.setitem(PROTOCOLS, "A", changed)
    output, folder = tmp_path / "runs", tmp_path / "results"
    shutil.copytree(small_set / "seed0", small_set / "seed1")
    full_ranking.main([small_set], [0, 1], ["popularity", "EASE"], output)
    full_ranking.main([small_set], [0], ["ItemKNN"], output)
    write_results(folder, "small", "A", output / "A" / "small")
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
    lines = read_lines(folder / "differences.csv")
    older = [{**lines[0], "seeds": seeds} for seeds in ("1", "1 2")]  # of these runs, and of others too
    write_lines(folder / "differences.csv", older)
    write_results(folder, "small", "A", output / "A" / "small")
    others = [line for line in read_lines(folder / "differences.csv") if line not in lines]
    assert [line["seeds"] for line in others] == ["1 2"]
    write_results(folder, "small", "A", output / "A" / "small", "ItemKNN")
    new = [line for line in read_lines(folder / "differences.csv") if line["reference"] == "ItemKNN"]
    assert {(line["row"], line["seeds"]) for line in new} == {("popularity", "0"), ("EASE", "0")}
    from_ease = next(line for line in lines if line["row"] == "ItemKNN" and line["metric"] == "ndcg@100")
    opposite = next(line for line in new if line["row"] == "EASE" and line["metric"] == "ndcg@100")
    assert float(opposite["difference"]) == -float(from_ease["difference"])
    assert all(line in read_lines(folder / "differences.csv") for line in lines), "those of EASE stay"
    values = output / "A" / "small" / "seed0" / "ease" / "test.parquet"
    better = pl.read_parquet(values).with_columns(pl.col("ndcg@100") + 0.5)
    better.write_parquet(values)
    write_results(folder, "small", "A", output / "A" / "small")
    anew = [line for line in read_lines(folder / "differences.csv") if line["metric"] == "ndcg@100"]
    found = {
        (line["reference"], line["row"]): float(line["difference"]) for line in anew if line["seeds"] == "0"
    }
    assert found["ItemKNN", "EASE"] == -found["EASE", "ItemKNN"]
    assert found["EASE", "ItemKNN"] == pytest.approx(0.5 + float(from_ease["difference"]), abs=1e-5)
    text = (folder / "runs.csv").read_text()
    (folder / "differences.csv").write_text("set,protocol,row,metric,seeds\n")
    with pytest.raises(SystemExit, match=r"differences.csv is no table of results \(no column reference\)"):
        write_results(folder, "small", "A", output / "A" / "small")
    assert (folder / "runs.csv").read_text() == text, "nothing is written"


def test_results_need_neither_the_reference_nor_a_row(small_set: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "runs", tmp_path / "results"
    write_results(folder, "small", "A", output / "A" / "small")
    assert not folder.exists(), "no row has succeeded"
    full_ranking.main([small_set], [0], ["popularity"], output)
    write_results(folder, "small", "A", output / "A" / "small")
    assert [line["row"] for line in read_lines(folder / "runs.csv")] == ["popularity"]
    assert not (folder / "differences.csv").exists()
    lines = read_lines(folder / "slices.csv")
    write_lines(folder / "slices.csv", lines[:1])
    assert read_lines(folder / "slices.csv") == lines[:1], "a run measured anew may have fewer slices"


def test_the_numbers_of_a_model_include_its_adapters(small_set: Path, tmp_path: Path) -> None:
    full_ranking.main([small_set], [0], ["popularity"], tmp_path / "runs")
    run = tmp_path / "runs" / "A" / "small" / "seed0" / "popularity"
    assert model_numbers(run) == 7, "one of each item"
    adapter = RunFolder.open(run).stage_folder() / "adapter"
    adapter.mkdir()
    save_file({"low": np.zeros((2, 3), dtype=np.float32)}, adapter / "adapter_model.safetensors")
    assert model_numbers(run) == 7 + 6


def test_results_are_written_by_one_process_at_a_time(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, folder = tmp_path / "runs", tmp_path / "results"
    full_ranking.main([small_set], [0], ["popularity"], output)
    folder.mkdir()
    holder = lock_holder(folder / "runs.csv")
    timer = threading.Timer(0.3, holder.communicate)  # it ends, and the results are written
    timer.start()
    write_results(folder, "small", "A", output / "A" / "small")
    timer.join()
    lines = read_lines(folder / "runs.csv")
    assert [line["row"] for line in lines] == ["popularity"]
    monkeypatch.setattr(ranking_results, "LOCK_SECONDS", 0.1)
    holder = lock_holder(folder / "runs.csv")
    with pytest.raises(ValueError, match=rf"runs.csv is being written by process {holder.pid} on "):
        write_results(folder, "small", "A", output / "A" / "small")
    holder.communicate()
    assert read_lines(folder / "runs.csv") == lines
