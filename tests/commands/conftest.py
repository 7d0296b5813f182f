"""Folders of inputs, and of the commands' outputs made from them."""

import shutil
from pathlib import Path

import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.commands.events import ITEMS, title, write_csv, write_events
from tests.support.commands import call


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files events.csv and items.csv; made from them, the dataset `data` and the finetuned CLLM4Rec `run`."""
    folder = tmp_path_factory.mktemp("commands")
    write_events(
        folder / "events.csv",
        timestamp=lambda user, item: 1_600_000_000 + 1000 * user + (item * 17) % 50,
        review_text=lambda user, item: f"a fine, long {item}\nread" if (user + item) % 2 else "",
    )
    write_csv(folder / "items.csv", [{"item_id": item_id, "title": title(item_id)} for item_id in ITEMS])
    tables = ("--interactions", folder / "events.csv", "--items", folder / "items.csv")
    call("prepare", *tables, "--output", folder / "data")
    call("pretrain", "--dataset", folder / "data", "--output", folder / "run", "--epochs", 1)
    call("finetune", "--run", folder / "run", "--epochs", 1)
    return folder


@pytest.fixture(scope="session")
def pretrained(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run before finetuning."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    shutil.copytree(workspace / "run", run)
    shutil.rmtree(run / "finetune")
    description = RunFolder(run).description
    del description.stages["finetune"]
    (run / "run.json").write_text(signed_text(description))
    return run


@pytest.fixture(scope="session")
def popularity_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `workspace`, with a popularity run, and titles in characters that few terminals have."""
    folder = tmp_path_factory.mktemp("popularity")
    world = taste_world(3, n_users=40, n_items=30, n_events=10)
    items = world.items.with_columns(title=world.items["title"] + " ☃ 日本")
    world.events.write_csv(folder / "events.csv")
    items.write_csv(folder / "items.csv")
    Dataset.from_frame(world.events, items, split="random").save(folder / "data")
    call("pretrain", "--system", "popularity", "--dataset", folder / "data", "--output", folder / "run")
    return folder
