"""Evaluate: the result file, the table of users, the protocol."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import PROTOCOL, measure
from cllm4rec.models import load
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.commands.events import ITEMS, USERS
from tests.support.commands import call, refusal


def test_evaluate_writes_one_json_with_fixed_keys_and_a_row_a_user(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--json", tmp_path / "r.json", "--per-user", tmp_path / "u.parquet")
    call("evaluate", "--run", workspace / "run", *files)
    result = json.loads((tmp_path / "r.json").read_text())
    keys = {
        "system", "dataset", "split", "protocol", "input", "n_users", "n_items", "metrics",
        "seconds", "users_per_second",
    }  # fmt: skip
    assert set(result) == keys
    metrics = {"recall@20", "recall@40", "ndcg@100", "hit_rate@10", "ndcg@10", "mrr", "coverage@20"}
    assert set(result["metrics"]) == metrics
    assert result["system"] == "cllm4rec"
    assert result["split"] == "test"
    assert result["protocol"] == PROTOCOL
    assert Path(result["dataset"]) == (workspace / "data").resolve()
    assert (result["n_users"], result["n_items"]) == (len(USERS), len(ITEMS))
    assert all(0 <= value <= 1 for value in result["metrics"].values())
    table = pl.read_parquet(tmp_path / "u.parquet")
    assert table.columns[0] == "user_id"
    assert set(table.columns[1:]) == metrics - {"coverage@20"}
    assert sorted(table["user_id"]) == sorted(USERS)
    for name in metrics - {"coverage@20"}:
        assert table[name].mean() == pytest.approx(result["metrics"][name])
    printed = capsys.readouterr().out
    assert f"{result['metrics']['ndcg@100']:.4f}" in printed
    assert PROTOCOL in printed


def test_evaluate_measures_by_the_protocol(workspace: Path, tmp_path: Path) -> None:
    dataset, model = Dataset.load(workspace / "data"), load(workspace / "run")
    expected = {
        "test": measure(model, dataset.train, dataset.test, dataset.only("train", "validation")),
        "validation": measure(model, dataset.train, dataset.validation, dataset.train),
    }
    for split, measured in expected.items():
        call("evaluate", "--run", workspace / "run", "--split", split, "--json", tmp_path / "r.json")
        result = json.loads((tmp_path / "r.json").read_text())
        assert result["metrics"] == pytest.approx(measured.metrics)
        assert result["split"] == split


def test_singular_nouns_are_printed_for_single_counts(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    call("evaluate", "--run", workspace / "run", "--candidates", 5, "--draws", 1)
    assert "; 1 draw of them averaged (seed 0)" in capsys.readouterr().out
    flags = ("--users", "007", "--k", 1, "--output", tmp_path / "lists.csv")
    with caplog.at_level("INFO"):
        call("recommend", "--run", workspace / "run", *flags)
    assert caplog.messages == [f"1 row for 1 user -> {tmp_path / 'lists.csv'}"]


def test_several_processes_do_not_measure_the_same(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal("evaluate", "--run", workspace / "run").endswith(
        "WORLD_SIZE is 2: start it without a launcher"
    )


def test_a_dataset_that_moved_is_found_with_its_flag(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "run", tmp_path / "run")
    description = RunFolder(tmp_path / "run").description
    moved = replace(description, dataset=replace(description.dataset, path=str(tmp_path / "gone")))
    (tmp_path / "run" / "run.json").write_text(signed_text(moved))
    with pytest.raises(ValueError, match="gone"):
        call("evaluate", "--run", tmp_path / "run")
    call("evaluate", "--run", tmp_path / "run", "--dataset", workspace / "data")
    call("recommend", "--run", tmp_path / "run", "--dataset", workspace / "data", "--users", "x")
