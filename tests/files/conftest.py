"""A dataset, runs of several systems, and copies of them to damage."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.files import folders
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.resume import Stopped
from tests.support.commands import call
from tests.support.damage import SYSTEMS


@pytest.fixture(params=["exchange", "two renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a folder replaces another: in one step, or in two where the system cannot exchange them."""
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchange", lambda new, folder: False)
    return str(request.param)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder that tests only read."""
    world = taste_world(0, n_users=12, n_items=30, n_events=8)
    items = pl.DataFrame({"item_id": world.events["item_id"].unique(maintain_order=True)})
    items = items.with_columns(title="Title " + pl.col("item_id").cast(pl.String))
    users = pl.DataFrame({"user_id": world.events["user_id"].unique(maintain_order=True)})
    folder = tmp_path_factory.mktemp("verification") / "data"
    Dataset.from_frame(world.events, items, users, split="random").save(folder)
    return folder


@pytest.fixture(scope="session")
def runs(data: Path) -> Path:
    """A folder of runs, one for each system, that tests only read."""
    for name in SYSTEMS:
        quick = {"ease": ["--regularization", 10], "itemknn": ["--neighbours", 5, "--shrinkage", 1]}.get(
            name, []
        )
        quick = quick if name in ("ease", "itemknn", "popularity") else ["--epochs", 1]
        call("pretrain", "--system", name, "--dataset", data, "--output", data.parent / name, *quick)
    return data.parent


@pytest.fixture
def dataset(data: Path, tmp_path: Path) -> Path:
    """A dataset folder to damage."""
    shutil.copytree(data, tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def stage(request: pytest.FixtureRequest, runs: Path, tmp_path: Path) -> Path:
    """A stage folder to damage, of the run of a system."""
    shutil.copytree(runs / request.param, tmp_path / "run")
    return tmp_path / "run" / "pretrain"


@pytest.fixture
def interrupted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of SASRec that was stopped after its second epoch."""
    after = TrainingRun.next_epoch

    def stop(run: TrainingRun) -> None:
        after(run)
        if run.progress.epoch == 2:
            raise Stopped("for this test")

    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(TrainingRun, "next_epoch", stop)
        call("pretrain", "--system", "sasrec", "--dataset", data, "--output", tmp_path / "run", "--epochs", 3)
    return tmp_path / "run"
