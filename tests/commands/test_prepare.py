"""Prepare: what is dropped and kept, ids, splits."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models import load
from tests.commands.events import ITEMS, USERS, write_csv
from tests.support.commands import call, refusal


def test_prepare_prints_what_it_dropped_and_kept(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("prepare", "--interactions", workspace / "events.csv", "--output", tmp_path / "data")
    printed = capsys.readouterr().out
    assert "latest of repeated events of a user and an item: dropped 0 events, 0 users, 0 items" in printed
    assert f"{len(USERS)} users, {len(ITEMS)} items, {12 * len(USERS)} events" in printed
    assert "train" in printed
    assert "validation" in printed


def test_prepare_prints_the_first_and_the_last_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["u1,a,2023-01-05 10:00", "u1,b,2024-02-29 23:59", "u1,c,"]
    for name, lines in {
        "times": ["user_id,item_id,timestamp", *rows],
        "none": ["user_id,item_id,timestamp", "u1,a,", "u1,b,"],
        "without": ["user_id,item_id", "u1,a"],
    }.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        flags = ("--interactions", tmp_path / f"{name}.csv", "--split", "none")
        call("prepare", *flags, "--output", tmp_path / name)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("timestamps")]
    assert printed[0] == "timestamps: 2 of 3 events, from 2023-01-05 to 2024-02-29"
    assert all(line == "timestamps: 0 of 2 events" for line in printed[1:])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("user=buyer", "user_id, item_id"),
        ("user_id", "--columns 'user_id': expected NAME=COLUMN,...; NAME is one of user_id, item_id, "),
        ("user_id=a,user_id=b", ", each once"),
    ],
)
def test_names_of_columns_are_pairs_of_known_columns(
    workspace: Path, tmp_path: Path, names: str, words: str
) -> None:
    flags = ("--interactions", workspace / "events.csv", "--output", tmp_path / "data")
    assert words in refusal("prepare", *flags, "--columns", names)


def test_prepare_keeps_ids_as_they_are(workspace: Path) -> None:
    dataset = Dataset.load(workspace / "data")
    assert sorted(dataset.user_ids.ids) == sorted(USERS)
    assert sorted(dataset.item_ids.ids) == sorted(ITEMS)


def test_prepare_gives_the_same_dataset_for_rows_in_another_order(workspace: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((workspace / "events.csv").open(newline="", encoding="utf-8")))
    write_csv(tmp_path / "events.csv", [rows[i] for i in np.random.default_rng(0).permutation(len(rows))])
    flags = ("--interactions", tmp_path / "events.csv", "--items", workspace / "items.csv")
    call("prepare", *flags, "--output", tmp_path / "data")
    ordered, shuffled = Dataset.load(workspace / "data"), Dataset.load(tmp_path / "data")
    assert ordered.fingerprint == shuffled.fingerprint
    assert ordered.split_fingerprint == shuffled.split_fingerprint


def test_whole_numbers_as_ids_stay_whole_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(10), 6), "item_id": np.arange(60) % 17 + 100})
    frame.write_parquet(tmp_path / "events.parquet")
    call("prepare", "--interactions", tmp_path / "events.parquet", "--output", tmp_path / "data")
    call("pretrain", "--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    call("recommend", "--run", tmp_path / "run", "--users", "3", "--output", tmp_path / "lists.parquet")
    table = pl.read_parquet(tmp_path / "lists.parquet")
    assert table.schema["user_id"] == table.schema["item_id"] == pl.Int64
    assert set(table["user_id"]) == {3}


def test_a_split_file_gives_the_parts_of_its_column(workspace: Path, tmp_path: Path) -> None:
    events = pl.read_csv(workspace / "events.csv", infer_schema=False).select("user_id", "item_id")
    codes = {"t": 0, "v": 1, "e": 2, "train": 0, "validation": 1, "test": 2}
    columns = {
        "seed_0": [("t", "t", "v", "e")[i % 4] for i in range(len(events))],
        "custom": [("train", "validation", "train", "test")[i % 4] for i in range(len(events))],
    }
    split = events.with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    split.slice(0, len(split) - 3).write_csv(tmp_path / "split.csv")
    flags = ("--interactions", workspace / "events.csv", "--split", tmp_path / "split.csv")
    call("prepare", *flags, "--output", tmp_path / "seed_0")
    call("prepare", *flags, "--split-column", "custom", "--output", tmp_path / "custom")
    for name, values in columns.items():
        dataset = Dataset.load(tmp_path / name)
        assert len(dataset.interactions) == len(events) - 3, "events that the file lacks are left out"
        users = dataset.user_ids.names(dataset.interactions.users)
        items = dataset.item_ids.names(dataset.interactions.items)
        expected = dict(zip(events.rows(), values, strict=True))
        for user, item, part in zip(users, items, dataset.part, strict=True):
            assert part == codes[expected[(user, item)]]


def test_a_missing_split_column_is_an_error_that_names_those_there_are(
    workspace: Path, tmp_path: Path
) -> None:
    pl.read_csv(workspace / "events.csv", infer_schema=False).select(
        "user_id", "item_id", pl.lit("train").alias("fold_a")
    ).write_csv(tmp_path / "parts.csv")
    with pytest.raises(ValueError, match="seed_0.*fold_a"):
        flags = ("--interactions", workspace / "events.csv", "--split", tmp_path / "parts.csv")
        call("prepare", *flags, "--output", tmp_path / "data")


def test_leave_last_out_holds_out_the_latest_events(workspace: Path, tmp_path: Path) -> None:
    flags = ("--interactions", workspace / "events.csv", "--split", "leave-last-out")
    call("prepare", *flags, "--output", tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    times = dataset.interactions.times
    for user in range(dataset.n_users):
        of_user = dataset.interactions.users == user
        assert sorted(dataset.part[of_user]) == [0] * 10 + [1, 2]
        assert times[of_user & (dataset.part == 2)][0] == times[of_user].max()
        assert times[of_user & (dataset.part == 1)][0] >= times[of_user & (dataset.part == 0)].max()


def test_users_who_come_only_late_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = taste_world(0, 60, 40)
    late, last = pl.col("user_id").is_in(world.user_ids[:4]), pl.col("user_id").is_in(world.user_ids[4:7])
    since = (pl.col("timestamp") - 1_600_000_000) // 8
    times = (
        pl.when(late)
        .then(1_643_500_000 + since)
        .when(last)
        .then(1_650_000_000 + since)
        .otherwise("timestamp")
    )
    events = world.events.with_columns(
        timestamp=times
    )  # users of the last fifth of the events, and users after all others
    events.write_csv(tmp_path / "events.csv")
    flags = ("--interactions", tmp_path / "events.csv", "--split", "time")
    call("prepare", *flags, "--output", tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    assert set(dataset.test.interactions.users.tolist()) - set(dataset.train.interactions.users.tolist())
    before_test = dataset.only("train", "validation")
    with_history = set(before_test.interactions.users.tolist())
    cold = set(dataset.test.interactions.users.tolist()) - with_history
    assert cold
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 1)
    call("finetune", "--run", tmp_path / "run", "--epochs", 1)
    capsys.readouterr()
    call("evaluate", "--run", tmp_path / "run", "--json", tmp_path / "r.json")
    assert f"{len(cold)} further users have no history" in capsys.readouterr().out
    n_measured = len(set(dataset.test.interactions.users.tolist()) & with_history)
    assert json.loads((tmp_path / "r.json").read_text())["n_users"] == n_measured
    call("recommend", "--run", tmp_path / "run", "--all", "--k", 3, "--output", tmp_path / "lists.csv")
    assert pl.read_csv(tmp_path / "lists.csv")["user_id"].n_unique() == dataset.n_users


def test_held_out_rows_are_found_from_histories_that_nothing_learns_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = {"a": "pq", "b": "pq", "c": "pqr"}
    events = [{"user_id": user, "item_id": item} for user in taken for item in taken[user]]
    write_csv(tmp_path / "events.csv", events)
    rows = [("val", "q r", "p"), ("test", "s r", "q"), ("test", "q", "r")]
    lines = ["split\thistory_items\ttarget_item", *("\t".join(row) for row in rows)]
    (tmp_path / "heldout.tsv").write_text("\n".join(lines) + "\n")
    flags = ("--interactions", tmp_path / "events.csv", "--split", tmp_path / "heldout.tsv")
    call("prepare", *flags, "--output", tmp_path / "data")
    call("pretrain", "--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    call("evaluate", "--run", tmp_path / "run", "--per-user", tmp_path / "users.parquet")
    printed = capsys.readouterr().out
    assert "2 users" in printed
    assert "input: training and history events" in printed
    model, dataset = load(tmp_path / "run"), Dataset.load(tmp_path / "data")
    counts = dict(zip(dataset.item_ids.ids, model._arrays()["counts"].tolist(), strict=True))
    assert counts == {"p": 3.0, "q": 3.0, "r": 1.0, "s": 0.0}, "nobody learns from the rows held out"
    values = dict(pl.read_parquet(tmp_path / "users.parquet").select("user_id", "mrr@100").iter_rows())
    first, second = dataset.tie_order[dataset.item_ids.index(["p", "q"])]
    assert values == {"test-1": 1.0 if second < first else 0.5, "test-2": 0.5}, (
        "s and r are known to test-1, q to test-2"
    )
