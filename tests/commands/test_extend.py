"""Extend: items, users and events for a run, and users taken out of it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec import Dataset, load
from cllm4rec.commands import extended_runs
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call, refusal
from tests.support.folders import texts_in

BOOKSHOP = Path(__file__).parents[2] / "datasets" / "bookshop"
READER = "reader-0109"
QUICK = ("--backbone", "1x64", "--epochs", 1)
NEW_ITEMS = "item_id,title\nn1,The Last Comet and the Rocket\nn2,Zzyzx\nbook-0072,Another\n"
NEW_EVENTS = f"buyer,sku\n{READER},n1\nann,n1\nann,book-0042\nann,book-0079\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of cllm4rec and bag on the bookshop, and tables to add."""
    folder = tmp_path_factory.mktemp("shop")
    users = pl.DataFrame({"user_id": [READER, "reader-0001"], "biography": ["loves xylophones", "reads"]})
    users.write_csv(folder / "users.csv")
    tables = ("--interactions", BOOKSHOP / "events.csv", "--items", BOOKSHOP / "items.csv")
    call("prepare", *tables, "--users", folder / "users.csv", "--output", folder / "data")
    call("pretrain", "--dataset", folder / "data", "--output", folder / "run", *QUICK)
    call("finetune", "--run", folder / "run", "--epochs", 1)
    call(
        "pretrain", "--dataset", folder / "data", "--output", folder / "bag", "--system", "bag", "--epochs", 1
    )
    (folder / "items.csv").write_text(NEW_ITEMS)
    (folder / "events.csv").write_text(NEW_EVENTS)
    (folder / "n2.csv").write_text("user_id,item_id\nann,n2\n")
    return folder


def lists(run: Path, user: str = READER) -> pl.DataFrame:
    return load(run).recommend(users=[user], k=101)


@pytest.mark.parametrize("run", ["run", "bag"])
def test_new_items_are_recommended_at_once(
    run: str, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "new"
    call("extend", "--run", shop / run, "--items", shop / "items.csv", "--output", output)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "added 1 item, 0 users, 0 events",
        "items of the table that are there already: 1 (their texts stay)",
    ]
    assert "1 new item without a text that the model reads: left out (n2)" in caplog.text
    before, after = lists(shop / run), lists(output)
    assert "n1" in after["item_id"]
    known = after.filter(pl.col("item_id") != "n1")
    assert known["item_id"].equals(before["item_id"]) and known["score"].equals(before["score"])
    call("evaluate", "--run", output)
    assert "200 users, 101 items" in capsys.readouterr().out
    assert [line.epoch for line in RunFolder(output).metrics()] == [
        line.epoch for line in RunFolder(shop / run).metrics()
    ]


def test_training_goes_on_with_new_events_and_users(shop: Path, tmp_path: Path) -> None:
    wide, output = tmp_path / "wide", tmp_path / "new"
    call("extend", "--run", shop / "run", "--items", shop / "items.csv", "--output", wide)
    columns = ("--columns", "user_id=buyer,item_id=sku")
    call("extend", "--run", wide, "--interactions", shop / "events.csv", *columns, "--output", output)
    before, after = Dataset.load(shop / "data"), Dataset.load(tmp_path / "new-dataset")
    assert after.user_ids.ids.to_list() == [*before.user_ids.ids, "ann"]
    assert len(after.train.interactions) == len(before.train.interactions) + 4
    assert after.test.interactions.items.tolist() == before.test.interactions.items.tolist()
    model = load(output)
    assert model.has_history[-1]  # ann
    text = model.net.item_text  # type: ignore[attr-defined]
    assert text.in_training[model.item_ids.index(["n1"])[0]] == 1
    assert not set(lists(output, "ann")["item_id"]) & {"n1", "book-0042", "book-0079"}
    embedding = model.net.collaborative.items.weight[-1]  # type: ignore[attr-defined]
    assert float(embedding.detach().abs().max()) > 0, "it was trained"
    call("finetune", "--run", output, "--epochs", 1)  # a run as any other


def test_an_interrupted_extension_resumes_from_its_own_weights(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first step, a run is not taken for one that has learned from the new events."""
    columns = ("--columns", "user_id=buyer,item_id=sku")
    tables = ("--items", shop / "items.csv", "--interactions", shop / "events.csv", *columns)
    call("extend", "--run", shop / "run", *tables, "--output", tmp_path / "whole")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extended_runs, "run_stage", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call("extend", "--run", shop / "run", *tables, "--output", tmp_path / "killed")
    run = RunFolder.open(tmp_path / "killed")
    assert not run.ended("finetune") and run.under_way("finetune") is not None
    call("finetune", "--run", tmp_path / "killed", "--resume")
    assert run.ended("finetune")
    weights = [load(tmp_path / name)._arrays() for name in ("whole", "killed")]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


def test_users_of_a_file_are_taken_out(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"{READER}\nreader-0002\n")
    output = ("--output", tmp_path / "new", "--dataset-output", tmp_path / "fewer")
    call("extend", "--run", shop / "bag", "--forget-file", tmp_path / "ids.txt", *output)
    assert len(load(tmp_path / "new").user_ids) == 198 == Dataset.load(tmp_path / "fewer").n_users


def test_new_items_may_have_vectors_of_a_file(shop: Path, tmp_path: Path) -> None:
    items = [*Dataset.load(shop / "data").item_ids.ids, "n1"]
    vectors = np.random.default_rng(0).normal(size=(len(items), 4)).astype(np.float32)
    table = pl.DataFrame({"item_id": items, "vector": vectors.tolist()})
    table[:-1].write_parquet(tmp_path / "old.parquet")
    table.write_parquet(tmp_path / "new.parquet")
    flags = ("--system", "bag", "--epochs", 1, "--item-vectors", tmp_path / "old.parquet")
    call("pretrain", "--dataset", shop / "data", "--output", tmp_path / "run", *flags)
    (tmp_path / "items.csv").write_text("item_id,title\nn1,Zzyzx\n")
    extend = ("--run", tmp_path / "run", "--items", tmp_path / "items.csv", "--output", tmp_path / "wide")
    assert "item 'n1' has no row" in refusal("extend", *extend)
    call("extend", *extend, "--item-vectors", tmp_path / "new.parquet")
    model = load(tmp_path / "wide")
    text = model.net.item_text  # type: ignore[attr-defined]
    assert text.vectors[-1].any()
    expected = text.vectors[-1] @ text.map * text.rate
    np.testing.assert_allclose(model.item_vectors()[-1], expected.detach(), rtol=1e-4, atol=1e-6)
    assert model.config.item_vectors == str(tmp_path / "new.parquet")
    message = refusal("extend", "--run", shop / "bag", *extend[2:4], "--output", tmp_path / "x", *flags[-2:])
    assert message == "the run reads no file of vectors: leave --item-vectors out"


def test_a_system_of_one_stage_is_trained_anew_with_its_settings(shop: Path, tmp_path: Path) -> None:
    output = tmp_path / "new"
    tables = ("--items", shop / "items.csv", "--interactions", shop / "events.csv")
    columns = ("--columns", "user_id=buyer,item_id=sku")
    call("extend", "--run", shop / "bag", *tables, *columns, "--output", output)
    old, new = (RunFolder(folder).description.stages["pretrain"] for folder in (shop / "bag", output))
    assert (new.system, new.training) == (old.system, old.training)
    assert "n1" not in lists(output, "ann")["item_id"]
    assert "n1" in lists(output, "reader-0001")["item_id"]


def test_forgotten_users_are_in_no_file(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Dataset.load(shop / "data")
    number = before.user_ids.index([READER])[0]
    events = before.interactions.select(before.interactions.users == number)
    assert events.reviews is not None
    reviews = [text for text in events.reviews if text]
    everywhere = before.interactions.reviews
    assert everywhere is not None
    own = [text for text in reviews if everywhere.to_list().count(text) == 1]
    marks = [READER, "xylophones", *own]
    originals = texts_in(shop / "data") + texts_in(shop / "run")
    assert all(mark in originals for mark in marks) and own, "the marks are found where the user is"
    (shop / "run" / "pretrain-state.safetensors").write_bytes(b"left by a killed process")
    call("extend", "--run", shop / "run", "--forget", READER, "--output", tmp_path / "new")
    (shop / "run" / "pretrain-state.safetensors").unlink()
    assert "still hold them: delete both" in capsys.readouterr().out
    content = texts_in(tmp_path)
    assert not [mark for mark in marks if mark in content]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "finetune",
        "metrics.jsonl",
        "pretrain",
        "run.json",
    ]
    model = load(tmp_path / "new")
    assert len(model.user_ids) == before.n_users - 1
    for table in ("collaborative", "content"):
        before_rows = getattr(load(shop / "run").net, table).users.weight  # type: ignore[attr-defined]
        rows = getattr(model.net, table).users.weight  # type: ignore[attr-defined]
        assert rows.tolist() == [row for n, row in enumerate(before_rows.tolist()) if n != number]
    others = [name for name in before.user_ids.ids if name != READER][:20]
    assert model.recommend(others).equals(load(shop / "run").recommend(others))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give either --items or --interactions to add, or --forget or --forget-file to take out"),
        (("--items", "items.csv", "--forget", "x"), "give either --items or --interactions to add"),
        (("--items", "items.csv", "--users", "u.csv"), "--users has the texts of users with new events"),
        (
            ("--forget", "x", "--columns", "user_id=a"),
            "--columns says how a table is read",
        ),
        (("--forget", ","), "there is no user to take out"),
        (("--items", "items.csv", "--dataset-output", "data"), "data exists and is not empty"),
        (("--items", "items.csv", "--dataset-output", "new/data"), "in it: name other folders by --output"),
        (("--items", "items.csv", "--dataset-output", "run/data"), "in it: name other folders by --output"),
        (("--items", "items.csv", "--columns", "user_id=x"), "--columns names columns of a table of events"),
        (("--items", "items.csv", "--interactions", "n2.csv"), "item 'n2' has new events, and no text that"),
        (("--forget", "nobody"), "user 'nobody' is not in the data"),
        (("--interactions", "events.csv"), "events.csv: no column for user_id"),
        (("--items", "items.csv", "--output", "data"), "data"),
    ],
)
def test_refusals_write_nothing(
    flags: tuple[str, ...], message: str, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    before = sorted(shop.iterdir())
    output = () if "--output" in flags else ("--output", "new")
    assert message in refusal("extend", "--run", "run", *flags, *output)
    assert sorted(shop.iterdir()) == before


@pytest.mark.parametrize("flags", [("--items", "items.csv"), ("--forget", READER)])
def test_a_run_that_cannot_be_written_leaves_no_dataset(
    flags: tuple[str, ...], shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(shop)
    output = ("--output", tmp_path / "new", "--dataset-output", tmp_path / "data")
    with monkeypatch.context() as failing:
        failing.setattr(extended_runs, "write_metrics", fail)
        assert "No space left on device" in refusal("extend", "--run", "run", *flags, *output)
    assert not list(tmp_path.iterdir())
    call("extend", "--run", "run", *flags, *output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "new"]


def test_unfinished_training_is_not_extended(shop: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", shop / "data", "--output", tmp_path / "run", *QUICK)
    message = refusal(
        "extend", "--run", tmp_path / "run", "--interactions", shop / "events.csv", "--columns",
        "user_id=buyer,item_id=sku", "--output", tmp_path / "new",
    )  # fmt: skip
    assert "is not finetuned, so that training cannot go on: finetune it first" in message
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    assert description["stages"].keys() == {"pretrain"}
