"""A user's script, as a type checker and as Python read it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]
SCRIPT = """
from typing import reveal_type

import cllm4rec
import polars as pl

users = ["u1"] * 4 + ["u2"] * 4
events = pl.DataFrame({"user_id": users, "item_id": list("abcdbcde"), "timestamp": [*range(4)] * 2})
items = pl.DataFrame({"item_id": list("abcde"), "title": ["A", "B", "C", "D", "E"]})
dataset = cllm4rec.Dataset.from_frame(events, items, split="leave-last-out")
reveal_type(dataset)
training = {"pretrain": cllm4rec.TrainConfig(epochs=1), "finetune": cllm4rec.TrainConfig(epochs=1)}
config = cllm4rec.CLLM4RecConfig(start="random")
model = cllm4rec.CLLM4Rec(config).fit(dataset, training)
reveal_type(model)
reveal_type(cllm4rec.Popularity().fit(dataset))
lists = model.recommend(["u1"], k=2, deny=["a"])
reveal_type(lists)
reveal_type(model.recommend(histories=[["a", "b"], ["c"]], k=2))
model.save("model")
loaded = cllm4rec.load("model", dataset=dataset)
reveal_type(loaded)
reveal_type(loaded.recommend(["u2"]))
task = dataset.task("test")
reveal_type(task)
reveal_type(loaded.rank(dataset.user_ids.index(["u1"]), task.input, masked=task.masked))
reveal_type(cllm4rec.measure(loaded, dataset, metrics=["ndcg"], ks=[2]))
"""
REVEALED = [
    "cllm4rec.data.dataset.Dataset",
    "cllm4rec.models.cllm4rec.recommender.CLLM4Rec",
    "cllm4rec.models.baselines.popularity.Popularity",
    "polars.dataframe.frame.DataFrame",
    "polars.dataframe.frame.DataFrame",
    "cllm4rec.models.base.Recommender",
    "polars.dataframe.frame.DataFrame",
    "cllm4rec.data.dataset.Task",
    "cllm4rec.ranking.Ranking",
    "cllm4rec.evaluation.measurement.Measurement",
]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def test_the_script_runs(script: Path) -> None:
    values = runpy.run_path(str(script))
    assert values["lists"].columns == ["user_id", "item_id", "rank", "score", "title"]


@pytest.mark.slow
def test_a_strict_type_checker_knows_each_type(script: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"MYPYPATH": str(PACKAGE)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [line for line in done.stdout.splitlines() if "Revealed type" in line]
    assert [note.split('"')[1] for note in notes] == REVEALED
