"""The commands from end to end, on files a person could have written."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from cllm4rec import cli, evaluate, finetune, prepare, pretrain, recommend
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import Oracle, taste_world
from cllm4rec.evaluation import PROTOCOL, measure
from cllm4rec.models import SYSTEMS, load, load_stage, system_settings
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.rehearsal import Rehearsal, Timed
from cllm4rec.training.run_description import signed_text

COMMANDS = {"prepare": prepare, "pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "recommend": recommend}
USERS = ["007", "7", "a b", " leading", "trailing ", "🦊", "Zoë", 'q"uote', "comma,id", "-minus", "NULL", "user_3", "x", "y"]
ITEMS = ["0001", "1", "two words", "🐟", "it,em", "é", "null", "item_7", *(f"i{number}" for number in range(16))]


def call(command: str, *arguments: object) -> None:
    COMMANDS[command].main([str(one) for one in arguments])


def write_events(path: Path, **columns: Callable[[int, int], object]) -> Path:
    """Each user takes half of the items."""
    rows = []
    for user, user_id in enumerate(USERS):
        for place in range(12):
            item = (5 * user + 7 * place) % len(ITEMS)
            row = {"user_id": user_id, "item_id": ITEMS[item]}
            rows.append(row | {name: value(user, item) for name, value in columns.items()})
    write_csv(path, rows)
    return path


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """events.csv, items.csv, and what the commands made of them: data, and a pretrained and finetuned run."""
    folder = tmp_path_factory.mktemp("commands")
    write_events(
        folder / "events.csv",
        timestamp=lambda user, item: 1_600_000_000 + 1000 * user + (item * 17) % 50,
        review_text=lambda user, item: f"a fine, long {item}\nread" if (user + item) % 2 else "",
    )
    write_csv(folder / "items.csv", [{"item_id": one, "title": title(one)} for one in ITEMS])
    call("prepare", "--interactions", folder / "events.csv", "--items", folder / "items.csv", "--output", folder / "data")
    call("pretrain", "--dataset", folder / "data", "--output", folder / "run", "--epochs", 1)
    call("finetune", "--run", folder / "run", "--epochs", 1)
    return folder


def title(item_id: str) -> str:
    return f'The "Book", of {item_id}'


@pytest.fixture(scope="module")
def pretrained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not finetuned."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    shutil.copytree(place / "run", run)
    shutil.rmtree(run / "finetune")
    about = RunFolder(run).about
    del about["stages"]["finetune"]
    (run / "run.json").write_text(signed_text(about))
    return run


def refusal(command: str, *arguments: object) -> str:
    """The one line that refuses a command: what it raises for `cli.run` to print."""
    with pytest.raises(ValueError) as ended:
        call(command, *arguments)
    assert "\n" not in str(ended.value)
    return str(ended.value)


# ------------------------------------------------------------------------------------------------------------ the main job


def test_prepare_says_what_it_dropped_and_what_is_left(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("prepare", "--interactions", place / "events.csv", "--output", tmp_path / "data")
    printed = capsys.readouterr().out
    assert "latest of repeated events of a user and an item: dropped 0 events, 0 users, 0 items" in printed
    assert f"{len(USERS)} users, {len(ITEMS)} items, {12 * len(USERS)} events" in printed
    assert "train" in printed
    assert "validation" in printed


def test_prepare_keeps_ids_as_they_are(place: Path) -> None:
    dataset = Dataset.load(place / "data")
    assert sorted(dataset.user_ids.ids) == sorted(USERS)
    assert sorted(dataset.item_ids.ids) == sorted(ITEMS)


def test_prepare_gives_the_same_dataset_for_rows_in_another_order(place: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((place / "events.csv").open(newline="", encoding="utf-8")))
    write_csv(tmp_path / "events.csv", [rows[i] for i in np.random.default_rng(0).permutation(len(rows))])
    call("prepare", "--interactions", tmp_path / "events.csv", "--items", place / "items.csv", "--output", tmp_path / "data")
    one, other = Dataset.load(place / "data"), Dataset.load(tmp_path / "data")
    assert one.fingerprint == other.fingerprint
    assert one.split_fingerprint == other.split_fingerprint


def test_evaluate_writes_one_json_with_fixed_keys_and_a_row_a_user(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("evaluate", "--run", place / "run", "--json", tmp_path / "r.json", "--per-user", tmp_path / "u.parquet")
    result = json.loads((tmp_path / "r.json").read_text())
    keys = {"system", "dataset", "split", "protocol", "input", "n_users", "n_items", "metrics", "seconds", "users_per_second"}
    assert set(result) == keys
    metrics = {"recall@20", "recall@40", "ndcg@100", "hit_rate@10", "ndcg@10", "mrr", "coverage@20"}
    assert set(result["metrics"]) == metrics
    assert result["system"] == "cllm4rec"
    assert result["split"] == "test"
    assert result["protocol"] == PROTOCOL
    assert Path(result["dataset"]) == (place / "data").resolve()
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


def test_evaluate_measures_what_the_protocol_says(place: Path, tmp_path: Path) -> None:
    dataset, model = Dataset.load(place / "data"), load(place / "run")
    expected = {
        "test": measure(model, dataset.train, dataset.test, dataset.only("train", "validation")),
        "validation": measure(model, dataset.train, dataset.validation, dataset.train),
    }
    for split, measured in expected.items():
        call("evaluate", "--run", place / "run", "--split", split, "--json", tmp_path / "r.json")
        result = json.loads((tmp_path / "r.json").read_text())
        assert result["metrics"] == pytest.approx(measured.metrics)
        assert result["split"] == split


READERS = {
    "csv": lambda path: pl.read_csv(path, infer_schema=False).cast({"rank": pl.Int64, "score": pl.Float64}),
    "parquet": pl.read_parquet,
    "jsonl": pl.read_ndjson,
}


@pytest.mark.parametrize("kind", READERS)
def test_recommend_writes_lists_with_the_ids_as_put_in(kind: str, place: Path, tmp_path: Path) -> None:
    path = tmp_path / f"lists.{kind}"
    call("recommend", "--run", place / "run", "--all", "--k", 5, "--output", path)
    table = READERS[kind](path)
    assert table.columns == ["user_id", "item_id", "rank", "score", "title"]
    assert len(table) == 5 * len(USERS)
    assert sorted(set(table["user_id"])) == sorted(USERS)
    assert set(table["item_id"]) <= set(ITEMS)
    assert table["title"].to_list() == [title(one) for one in table["item_id"]]
    events = pl.read_csv(place / "events.csv", infer_schema=False)
    known = set(zip(events["user_id"], events["item_id"], strict=True))
    assert not known & set(zip(table["user_id"], table["item_id"], strict=True)), "no item of any part is recommended"
    for user in USERS:
        own = table.filter(pl.col("user_id") == user)
        assert own["rank"].to_list() == [1, 2, 3, 4, 5]
        assert own["score"].is_sorted(descending=True)
        assert own["item_id"].n_unique() == 5


@pytest.mark.parametrize("output", [[], ["--output", "lists.csv"]], ids=["standard output", "one file"])
def test_several_processes_refuse_to_write_into_one_place(
    output: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(place)
    with pytest.raises(ValueError, match="several processes write a part each"):
        call("recommend", "--run", place / "run", "--all", *output)
    assert not (place / "lists.csv").exists()


def test_several_processes_do_not_measure_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal("evaluate", "--run", place / "run").endswith("WORLD_SIZE is 2: start it without a launcher")


def test_recommend_prints_a_table_where_no_file_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("recommend", "--run", place / "run", "--users", "007,🦊, leading", "--k", 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["user_id", "item_id", "rank", "score", "title"]
    assert [line.split("\t")[0] for line in lines[1:]] == ["007"] * 3 + ["🦊"] * 3 + [" leading"] * 3


def test_recommend_takes_users_from_a_file_and_keeps_their_order(place: Path, tmp_path: Path) -> None:
    asked = ["trailing ", "comma,id", "-minus", 'q"uote', "NULL", "7", "007"]
    (tmp_path / "users.txt").write_text("\n".join(asked) + "\n", encoding="utf-8")
    path = tmp_path / "lists.parquet"
    call("recommend", "--run", place / "run", "--users-file", tmp_path / "users.txt", "--k", 2, "--output", path)
    assert pl.read_parquet(path)["user_id"].to_list() == [user for user in asked for _ in range(2)]


def test_recommend_gives_every_unseen_item_where_k_is_beyond_the_catalogue(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    call("recommend", "--run", place / "run", "--users", "007", "--k", 500, "--output", path)
    assert len(pl.read_parquet(path)) == len(ITEMS) - 12


def test_recommend_leaves_out_titles_where_the_data_has_none(place: Path, tmp_path: Path) -> None:
    call("prepare", "--interactions", place / "events.csv", "--output", tmp_path / "data")
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 1)
    call("recommend", "--run", tmp_path / "run", "--all", "--output", tmp_path / "lists.csv")
    assert pl.read_csv(tmp_path / "lists.csv").columns == ["user_id", "item_id", "rank", "score"]


def test_whole_numbers_as_ids_stay_whole_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(10), 6), "item_id": np.arange(60) % 17 + 100})
    frame.write_parquet(tmp_path / "events.parquet")
    call("prepare", "--interactions", tmp_path / "events.parquet", "--output", tmp_path / "data")
    call("pretrain", "--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    call("recommend", "--run", tmp_path / "run", "--users", "3", "--output", tmp_path / "lists.parquet")
    table = pl.read_parquet(tmp_path / "lists.parquet")
    assert table.schema["user_id"] == table.schema["item_id"] == pl.Int64
    assert set(table["user_id"]) == {3}


def test_a_dataset_that_moved_is_found_with_its_flag(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    about = RunFolder(tmp_path / "run").about
    about["dataset"]["path"] = str(tmp_path / "gone")
    (tmp_path / "run" / "run.json").write_text(signed_text(about))
    with pytest.raises(ValueError, match="gone"):
        call("evaluate", "--run", tmp_path / "run")
    call("evaluate", "--run", tmp_path / "run", "--dataset", place / "data")
    call("recommend", "--run", tmp_path / "run", "--dataset", place / "data", "--users", "x")


# ------------------------------------------------------------------------------------------------------------------ splits


def test_a_split_file_gives_the_parts_of_its_column(place: Path, tmp_path: Path) -> None:
    events = pl.read_csv(place / "events.csv", infer_schema=False).select("user_id", "item_id")
    letters = [("t", "t", "v", "e")[i % 4] for i in range(len(events))]
    words = [("train", "validation", "train", "test")[i % 4] for i in range(len(events))]
    parts = events.with_columns(seed_0=pl.Series(letters), mine=pl.Series(words))
    parts.slice(0, len(parts) - 3).write_csv(tmp_path / "parts.csv")
    flags = ("--interactions", place / "events.csv", "--split", tmp_path / "parts.csv")
    call("prepare", *flags, "--output", tmp_path / "one")
    call("prepare", *flags, "--split-column", "mine", "--output", tmp_path / "other")
    for name, given in (("one", letters), ("other", words)):
        dataset = Dataset.load(tmp_path / name)
        assert len(dataset.interactions) == len(events) - 3, "events that the file does not name are left out"
        users = dataset.user_ids.names(dataset.interactions.users)
        items = dataset.item_ids.names(dataset.interactions.items)
        wanted = {(u, i): part[0] for (u, i), part in zip(events.rows(), given, strict=True)}
        code = {"t": 0, "v": 1, "e": 2} if name == "one" else {"t": None, "v": 1}
        for user, item, part in zip(users, items, dataset.part, strict=True):
            if name == "other":
                word = dict(zip(events.rows(), words, strict=True))[(user, item)]
                assert part == ("train", "validation", "test").index(word)
            else:
                assert part == code[wanted[(user, item)]]


def test_a_missing_split_column_is_an_error_that_names_those_there_are(place: Path, tmp_path: Path) -> None:
    pl.read_csv(place / "events.csv", infer_schema=False).select(
        "user_id", "item_id", pl.lit("train").alias("fold_a")
    ).write_csv(tmp_path / "parts.csv")
    with pytest.raises(ValueError, match="seed_0.*fold_a"):
        call(
            "prepare", "--interactions", place / "events.csv", "--split", tmp_path / "parts.csv", "--output", tmp_path / "data"
        )


def test_a_dataset_without_a_split_is_trained_without_validation(place: Path, tmp_path: Path) -> None:
    call("prepare", "--interactions", place / "events.csv", "--split", "none", "--output", tmp_path / "data")
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 1)
    call("finetune", "--run", tmp_path / "run", "--epochs", 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines].count("finetune") == 2
    assert all(line["validation"] is None for line in lines)
    call("recommend", "--run", tmp_path / "run", "--all", "--output", tmp_path / "lists.csv")
    with pytest.raises(ValueError, match="no test events"):
        call("evaluate", "--run", tmp_path / "run")


def test_leave_last_out_holds_out_the_latest_events(place: Path, tmp_path: Path) -> None:
    flags = ("--interactions", place / "events.csv", "--split", "leave-last-out")
    call("prepare", *flags, "--output", tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    times = dataset.interactions.times
    for user in range(dataset.n_users):
        own = dataset.interactions.users == user
        assert sorted(dataset.part[own]) == [0] * 10 + [1, 2]
        assert times[own & (dataset.part == 2)][0] == times[own].max()
        assert times[own & (dataset.part == 1)][0] >= times[own & (dataset.part == 0)].max()


# ----------------------------------------------------------------------------------------------------------- other systems


@pytest.mark.parametrize("system", ["ials", "ease", "itemknn", "popularity"])
def test_a_one_stage_system_goes_through_the_same_commands(
    system: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("pretrain", "--system", system, "--dataset", place / "data", "--output", tmp_path / "run")
    capsys.readouterr()
    call("finetune", "--run", tmp_path / "run")
    assert f"{system} is fitted in one stage" in capsys.readouterr().out
    call("evaluate", "--run", tmp_path / "run", "--json", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["system"] == system
    call("recommend", "--run", tmp_path / "run", "--all", "--output", tmp_path / "lists.jsonl")
    assert len(pl.read_ndjson(tmp_path / "lists.jsonl")) > 0


def test_recommending_after_pretraining_alone_works(pretrained: Path, tmp_path: Path) -> None:
    call("recommend", "--run", pretrained, "--all", "--k", 3, "--output", tmp_path / "lists.parquet")
    assert len(pl.read_parquet(tmp_path / "lists.parquet")) == 3 * len(USERS)


def test_finetuning_again_starts_from_pretraining_and_gives_the_same(pretrained: Path, tmp_path: Path) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    weights = []
    for _ in range(2):
        call("finetune", "--run", tmp_path / "run", "--epochs", 1)
        weights.append(load_file(tmp_path / "run" / "finetune" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_finetune_refuses_to_change_what_pretraining_settled(pretrained: Path) -> None:
    for flags in (("--backbone", "small"), ("--start", "random")):
        with pytest.raises(ValueError, match="settled by pretraining"):
            call("finetune", "--run", pretrained, *flags)


# ---------------------------------------------------------------------------------------------------------------- --config


def stage_settings(run: Path, stage: str = "pretrain") -> dict[str, dict[str, object]]:
    return dict(json.loads((run / "run.json").read_text())["stages"][stage])


def test_a_config_file_fills_flags_and_typed_flags_win(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 2\nlearning_rate: 0.005\nmutual: 0.25\nbatch-size: 7\n")
    flags = ("--dataset", place / "data", "--output", tmp_path / "run", "--config", config, "--epochs", 1)
    call("pretrain", *flags)
    stage = stage_settings(tmp_path / "run")
    assert stage["training"]["epochs"] == 1
    assert stage["training"]["learning_rate"] == 0.005
    assert stage["training"]["batch_size"] == 7
    assert stage["system"]["mutual"] == 0.25


def test_a_config_file_fills_the_folders_too(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({"dataset": str(place / "data"), "output": str(tmp_path / "run"), "epochs": 1}))
    call("pretrain", "--config", config)
    assert (tmp_path / "run" / "pretrain" / "model.safetensors").is_file()


def test_a_config_file_names_the_system(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("system: popularity\n")
    call("pretrain", "--dataset", place / "data", "--output", tmp_path / "run", "--config", config)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["system"] == "popularity"


def test_a_config_file_names_the_preset_of_pretraining(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("preset: paper\nepochs: 1\ncontent_warmup: 0\n")
    call("pretrain", "--dataset", place / "data", "--output", tmp_path / "run", "--config", config)
    stage = stage_settings(tmp_path / "run")
    assert (stage["system"]["start"], stage["training"]["batch_size"]) == ("random", 20)


def test_a_config_file_names_the_preset_of_preparing(tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv", rating=lambda user, item: 3 + (user + item) % 3)
    (tmp_path / "prepare.yaml").write_text("preset: paper\nk_core: 0\n")
    flags = ("--interactions", tmp_path / "events.csv", "--output", tmp_path / "data", "--config", tmp_path / "prepare.yaml")
    call("prepare", *flags)
    rules = [rule["rule"] for rule in Dataset.load(tmp_path / "data").about["rules"]]
    assert "rating > 3" in rules


def test_a_config_file_names_the_run_to_finetune(pretrained: Path, tmp_path: Path) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    config = tmp_path / "finetune.yaml"
    config.write_text(json.dumps({"run": str(tmp_path / "run"), "epochs": 1}))
    call("finetune", "--config", config)
    assert (tmp_path / "run" / "finetune" / "model.json").is_file()


def test_a_config_value_may_begin_with_a_dash(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "recommend.yaml"
    config.write_text('users: "-minus"\nk: 2\n')
    call("recommend", "--run", place / "run", "--config", config, "--output", tmp_path / "lists.parquet")
    assert set(pl.read_parquet(tmp_path / "lists.parquet")["user_id"]) == {"-minus"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("no_such_flag: 3", "no-such-flag"), ("[1, 2]", "flag: value"), ("a: b: c", "not YAML")],
    ids=["unknown key", "a list", "not YAML"],
)
def test_a_config_file_with_a_mistake_is_an_error(text: str, words: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    flags = ("--dataset", place / "data", "--output", tmp_path / "run", "--config", tmp_path / "run.yaml")
    assert words in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()


def test_a_missing_config_file_is_an_error(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: there is no such file"):
        call("evaluate", "--run", place / "run", "--config", tmp_path / "none.yaml")


def test_the_preset_of_the_paper_fills_both_stages(place: Path, tmp_path: Path) -> None:
    flags = ("--dataset", place / "data", "--output", tmp_path / "run", "--preset", "paper")
    call("pretrain", *flags, "--epochs", 1, "--content-warmup", 0)
    call("finetune", "--run", tmp_path / "run", "--epochs", 1)
    for stage, learning_rate in (("pretrain", 1e-3), ("finetune", 1e-4)):
        settings = stage_settings(tmp_path / "run", stage)
        assert settings["training"]["learning_rate"] == learning_rate
        assert settings["training"]["batch_size"] == 20
        for name, value in {"start": "random", "mask_share": 0.2, "readout": "last", "attention": "causal"}.items():
            assert settings["system"][name] == value


# ------------------------------------------------------------------------------------------------------------------ --help


FLAGS = {
    "prepare": "interactions items users columns item-columns user-columns separator no-header sequences escape encoding "
    "max-unpacked-gib output preset min-rating k-core split "
    "split-column seed config",
    "pretrain": "dataset output resume system preset backbone tune start mutual epochs batch-size learning-rate "
    "max-minutes config",
    "finetune": "run dataset resume mask-share targets epochs batch-size accumulation patience seed config",
    "evaluate": "run split json per-user dataset config",
    "recommend": "run users users-file all k output dataset config",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(command, "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for flag in FLAGS[command].split():
        assert f"--{flag}" in printed


@pytest.mark.parametrize("system", SYSTEMS)
def test_help_of_pretrain_names_the_settings_of_the_system(system: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call("pretrain", "--system", system, "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for name in (field.name for field in fields(system_settings(system))):
        assert f"--{name.replace('_', '-')}" in printed


@pytest.mark.parametrize("typed", [["--help"], ["--epoch", "3"]], ids=["help", "a mistyped flag"])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_trains_is_imported_before_the_flags_are_right(command: str, typed: list[str]) -> None:
    heavy = {"torch", "transformers", "accelerate", "tokenizers"}
    code = f"""
import runpy, sys
sys.argv = ["cllm4rec", *{typed}]
try:
    runpy.run_module("cllm4rec.{command}", run_name="__main__")
except SystemExit as ended:
    print({heavy} & set(sys.modules), ended.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"set() {0 if typed == ['--help'] else 2}"


# --------------------------------------------------------------------------------------------------------------- --dry-run


def test_a_dry_run_says_what_training_takes_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}

    before = files()
    call("pretrain", "--dataset", place / "data", "--output", place / "new", "--dry-run", "--epochs", 7, "--batch-size", 5)
    printed = capsys.readouterr().out
    n_parameters = sum(p.numel() for p in load_stage(RunFolder(place / "run"), "pretrain").net.parameters())
    assert f"parameters   {n_parameters:,} trained" in printed
    n_examples = int((np.diff(Dataset.load(place / "data").train.interactions.indptr) > 0).sum())
    assert f"collaborative {-(-n_examples // 5)} steps an epoch" in printed
    assert "(7 epochs and 1 of warm-up; patience may end them earlier)" in printed
    call("finetune", "--run", place / "run", "--dry-run")
    assert "recommend" in capsys.readouterr().out
    assert files() == before
    call("pretrain", "--system", "popularity", "--dataset", place / "data", "--output", place / "new", "--dry-run")
    assert "there are no steps to time" in capsys.readouterr().out
    assert not (place / "new").exists()


def test_the_sums_of_a_dry_run_by_hand() -> None:
    """Two of content alone, then three of both; a validation after each of the three."""
    content, other = Timed("content", 10, 0, 0.5, 100), Timed("other", 20, 2, 0.25, 100)
    found = Rehearsal({"table": 2**18, "rest": 2**18}, 2**20, 2**17, [content, other], 7.0, 3, 1, 100.0)
    assert found.most_seconds == 5 * 10 * 0.5 + 3 * 20 * 0.25 + 3 * 7
    assert replace(found, epochs=8, validate_every=3).validation_seconds == 4 * 7, "epochs 0, 3 and 6, and the last, 7"
    assert replace(found, epochs=0).most_seconds == 0
    assert found.memory == 4 + 5 * 2 - 0.5, (
        "MiB: 4 frozen; of 2 trained weights, gradients (but of rows), two moments, the best"
    )


# ---------------------------------------------------------------------------------------------------------- users' mistakes


def typed(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What a person at a terminal gets."""
    line = [sys.executable, "-m", f"cllm4rec.{command}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False)


def assert_refused(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_a_missing_file_ends_in_one_line(tmp_path: Path) -> None:
    ended = typed("prepare", "--interactions", tmp_path / "none.csv", "--output", tmp_path / "data")
    assert_refused(ended, "none.csv", "no such file")
    assert not (tmp_path / "data").exists()


def test_a_missing_flag_ends_in_one_line() -> None:
    assert_refused(typed("prepare", "--output", "data"), "--interactions")


def test_an_unknown_flag_ends_in_one_line(place: Path, tmp_path: Path) -> None:
    ended = typed("prepare", "--interactions", place / "events.csv", "--output", tmp_path / "data", "--kcore", 5)
    assert_refused(ended, "--kcore")
    assert not (tmp_path / "data").exists()


def test_an_unknown_user_ends_in_one_line(place: Path) -> None:
    assert_refused(typed("recommend", "--run", place / "run", "--users", "7,nobody"), "nobody")


def test_an_existing_run_folder_ends_in_one_line(place: Path) -> None:
    before = (place / "run" / "run.json").read_bytes()
    assert_refused(typed("pretrain", "--dataset", place / "data", "--output", place / "run"), "exists", "new folder")
    assert (place / "run" / "run.json").read_bytes() == before


def ending(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, *arguments: object) -> str:
    """The one line that a command ends in, without a process of its own."""
    monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.run(COMMANDS[command].main)
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def test_users_and_all_together_end_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ending(capsys, monkeypatch, "recommend", "--run", place / "run", "--users", "7", "--all")
    assert "--users" in line
    assert "--all" in line


def test_a_json_file_in_no_folder_ends_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--run", place / "run", "--json", tmp_path / "none" / "r.json")
    assert "none" in ending(capsys, monkeypatch, "evaluate", *flags)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("recommend", ("--run", "{run}"), "--users A,B"),
        ("recommend", ("--run", "{run}", "--users-file", "{place}/none.txt"), "none.txt: there is no such file"),
        ("recommend", ("--run", "{run}", "--users-file", "{place}/empty.txt"), "empty.txt"),
        ("recommend", ("--run", "{run}", "--all", "--k", "0"), "k is 0"),
        ("recommend", ("--run", "{run}", "--all", "--output", "{place}/lists.xlsx"), "lists.xlsx"),
        ("recommend", ("--run", "{run}", "--all", "--output", "{place}/none/lists.csv"), "there is no folder"),
        ("evaluate", ("--run", "{place}"), "not a run folder"),
        ("evaluate", ("--run", "{run}", "--per-user", "{place}/none/u.csv"), "there is no folder"),
        ("pretrain", ("--dataset", "{place}", "--output", "{place}/new"), "not a dataset folder"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/empty.txt"), "empty.txt is a file"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/empty.txt/run"), "empty.txt is a file"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/new", "--learning-rate", "nan"), "learning_rate is nan"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/new", "--max-minutes", "inf"), "max_minutes is inf"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/new", "--seed", "-5"), "seed is -5"),
        ("pretrain", ("--system", "magic", "--dataset", "{data}", "--output", "{place}/new"), "magic.*cllm4rec"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/new", "--preset", "magic"), "magic.*paper"),
        ("pretrain", ("--dataset", "{data}", "--output", "{place}/new", "--backbone", "{place}"), "backbone"),
        ("finetune", ("--run", "{place}/new2"), "not a run folder"),
        ("prepare", ("--interactions", "{place}/events.csv", "--output", "{place}", "--split", "none"), "another one"),
        ("prepare", ("--interactions", "{place}/events.csv", "--output", "{place}/prepared", "--split", "x.csv"), "x.csv"),
        (
            "prepare",
            ("--interactions", "{place}/events.csv", "--output", "{place}/prepared", "--min-rating", "3"),
            "rating column",
        ),
        (
            "prepare",
            ("--interactions", "{place}/events.csv", "--output", "{place}/prepared", "--k-core", "99"),
            "nothing is left",
        ),
        ("prepare", ("--interactions", "{place}/items.csv", "--output", "{place}/prepared"), "user_id"),
    ],
)
def test_mistakes_are_errors_that_name_the_value(command: str, arguments: tuple[str, ...], message: str, place: Path) -> None:
    (place / "empty.txt").write_text("")
    filled = [one.format(run=place / "run", data=place / "data", place=place) for one in arguments]
    with pytest.raises(ValueError, match=message):
        call(command, *filled)


def test_what_is_replaced_is_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    with caplog.at_level("INFO"):
        call("finetune", "--run", tmp_path / "run", "--epochs", 1)
    assert f"{tmp_path / 'run'}: the finetuning that is there is replaced" in caplog.text
    for _ in range(2):
        call("prepare", "--interactions", place / "events.csv", "--items", place / "events.csv", "--output", tmp_path / "data")
    printed = capsys.readouterr().out
    assert printed.count("the dataset that was there is replaced") == 1
    assert printed.count("events.csv: no column of texts") == 2


def test_a_choice_that_does_not_exist_is_an_error_that_names_those_there_are(place: Path) -> None:
    assert "validation" in refusal("evaluate", "--run", place / "run", "--split", "train")


def test_the_output_of_a_refused_command_can_be_used_by_the_corrected_one(place: Path, tmp_path: Path) -> None:
    flags = ("--dataset", place / "data", "--output", tmp_path / "run", "--epochs", 1)
    with pytest.raises(ValueError, match="backbone"):
        call("pretrain", *flags, "--backbone", tmp_path / "none")
    call("pretrain", *flags)
    assert (tmp_path / "run" / "pretrain" / "model.json").is_file()


# --------------------------------------------------------------------------------------------------------------- the demo's bar


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cllm4rec_with_its_defaults_reaches_seven_tenths_of_the_oracle(seed: int) -> None:
    world = taste_world(seed)
    dataset = build_dataset(world.events, world.items, seed=seed)
    model = CLLM4Rec()
    for stage in model.stages:
        model.fit(dataset.train, dataset.validation, None, stage)
    masked = dataset.only("train", "validation")
    own, best = (measure(one, dataset.train, dataset.test, masked).metrics["ndcg@100"] for one in (model, Oracle(world)))
    assert own >= 0.7 * best


def test_ids_in_a_config_file_stay_as_they_are_written(place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("users: [007, a b]\nk: 3\n")
    call("recommend", "--run", place / "run", "--config", tmp_path / "run.yaml", "--output", tmp_path / "lists.parquet")
    assert pl.read_parquet(tmp_path / "lists.parquet")["user_id"].unique().sort().to_list() == ["007", "a b"]


def test_a_key_that_is_no_flag_is_refused_whatever_its_value(place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("usres: false\n")
    assert "usres" in refusal("recommend", "--run", place / "run", "--all", "--config", tmp_path / "run.yaml")


def test_finetuning_takes_the_seed_of_pretraining(place: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", place / "data", "--output", tmp_path / "run", "--epochs", 0, "--seed", 3)
    call("finetune", "--run", tmp_path / "run", "--epochs", 0)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["finetune"]["training"]["seed"] == 3


def test_the_demonstration_leaves_the_folders_of_others_alone(tmp_path: Path) -> None:
    from experiments.demo import main

    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(SystemExit, match="did not write"):
        main(0, tmp_path, "tiny")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_users_who_come_only_late_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = taste_world(0, 60, 40)
    late, last = pl.col("user_id").is_in(world.user_ids[:4]), pl.col("user_id").is_in(world.user_ids[4:7])
    since = (pl.col("timestamp") - 1_600_000_000) // 8
    times = pl.when(late).then(1_643_500_000 + since).when(last).then(1_650_000_000 + since).otherwise("timestamp")
    events = world.events.with_columns(timestamp=times)  # some come in the last fifth of the events, some after all others
    events.write_csv(tmp_path / "events.csv")
    call("prepare", "--interactions", tmp_path / "events.csv", "--output", tmp_path / "data", "--split", "time")
    dataset = Dataset.load(tmp_path / "data")
    assert set(dataset.test.interactions.users.tolist()) - set(dataset.train.interactions.users.tolist())
    with_history = set(dataset.only("train", "validation").interactions.users.tolist())  # validation comes before test
    cold = set(dataset.test.interactions.users.tolist()) - with_history
    assert cold
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 1)
    call("finetune", "--run", tmp_path / "run", "--epochs", 1)
    capsys.readouterr()
    call("evaluate", "--run", tmp_path / "run", "--json", tmp_path / "r.json")
    assert f"{len(cold)} further users have no history to go by" in capsys.readouterr().out
    n_measured = len(set(dataset.test.interactions.users.tolist()) & with_history)
    assert json.loads((tmp_path / "r.json").read_text())["n_users"] == n_measured
    call("recommend", "--run", tmp_path / "run", "--all", "--k", 3, "--output", tmp_path / "lists.csv")
    assert pl.read_csv(tmp_path / "lists.csv")["user_id"].n_unique() == dataset.n_users


def test_held_out_rows_are_found_from_histories_that_nothing_learns_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = {"a": "pq", "b": "pq", "c": "pqr"}
    write_csv(tmp_path / "events.csv", [{"user_id": user, "item_id": item} for user in taken for item in taken[user]])
    rows = [("val", "q r", "p"), ("test", "s r", "q"), ("test", "q", "r")]
    lines = ["split\thistory_items\ttarget_item", *("\t".join(row) for row in rows)]
    (tmp_path / "heldout.tsv").write_text("\n".join(lines) + "\n")
    call(
        "prepare", "--interactions", tmp_path / "events.csv", "--split", tmp_path / "heldout.tsv", "--output", tmp_path / "data"
    )
    call("pretrain", "--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    call("evaluate", "--run", tmp_path / "run", "--per-user", tmp_path / "users.parquet")
    assert "2 users" in capsys.readouterr().out
    model, dataset = load(tmp_path / "run"), Dataset.load(tmp_path / "data")
    counts = dict(zip(dataset.item_ids.ids, model._arrays()["counts"].tolist(), strict=True))
    assert counts == {"p": 3.0, "q": 3.0, "r": 1.0, "s": 0.0}, "nobody learns from the rows held out"
    values = dict(pl.read_parquet(tmp_path / "users.parquet").select("user_id", "mrr").iter_rows())
    first, second = dataset.tie_order[dataset.item_ids.index(["p", "q"])]
    assert values == {"test-1": 1.0 if second < first else 0.5, "test-2": 0.5}, "s and r are known to test-1, q to test-2"


def test_a_setting_may_be_left_to_the_validation_events(place: Path, tmp_path: Path) -> None:
    flags = ("--system", "itemknn", "--neighbours", "5", "--shrinkage", "1", "--dataset", place / "data")
    call("pretrain", *flags, "--decay", "auto", "--output", tmp_path / "chosen")
    call("pretrain", *flags, "--output", tmp_path / "plain")
    assert load(tmp_path / "plain").config.decay == 1.0
    assert load(tmp_path / "chosen").config.decay in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    with pytest.raises(ValueError, match="invalid float value: 'much'"):
        call("pretrain", *flags, "--decay", "much", "--output", tmp_path / "wrong")
