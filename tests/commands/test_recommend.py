"""Recommend: lists as tables and on standard output."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec import load
from cllm4rec.commands.tables import read_ids
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.commands.events import ITEMS, USERS, title, write_csv
from tests.support.commands import call, refusal

READERS = {
    "csv": lambda path: pl.read_csv(path, infer_schema=False).cast({"rank": pl.Int64, "score": pl.Float64}),
    "parquet": pl.read_parquet,
    "jsonl": pl.read_ndjson,
}


@pytest.mark.parametrize("kind", READERS)
def test_recommend_writes_lists_with_the_ids_as_put_in(kind: str, workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / f"lists.{kind}"
    call("recommend", "--run", workspace / "run", "--all", "--k", 5, "--output", path)
    table = READERS[kind](path)
    assert table.columns == ["user_id", "item_id", "rank", "score", "title"]
    assert len(table) == 5 * len(USERS)
    assert sorted(set(table["user_id"])) == sorted(USERS)
    assert set(table["item_id"]) <= set(ITEMS)
    assert table["title"].to_list() == [title(item_id) for item_id in table["item_id"]]
    events = pl.read_csv(workspace / "events.csv", infer_schema=False)
    known = set(zip(events["user_id"], events["item_id"], strict=True))
    assert not known & set(zip(table["user_id"], table["item_id"], strict=True)), (
        "no item of any part is recommended"
    )
    for user in USERS:
        rows = table.filter(pl.col("user_id") == user)
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
        assert rows["score"].is_sorted(descending=True)
        assert rows["item_id"].n_unique() == 5


def test_a_repeated_user_gets_one_list(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("recommend", "--run", workspace / "run", "--users", "007,007", "--k", 3)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


@pytest.mark.parametrize("output", [[], ["--output", "lists.csv"]], ids=["standard output", "one file"])
def test_several_processes_refuse_to_write_into_one_file(
    output: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(workspace)
    with pytest.raises(ValueError, match="several processes write a file each"):
        call("recommend", "--run", workspace / "run", "--all", *output)
    assert not (workspace / "lists.csv").exists()


def test_recommend_prints_a_table_where_no_file_is_named(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("recommend", "--run", workspace / "run", "--users", "007,🦊, leading", "--k", 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["user_id", "item_id", "rank", "score", "title"]
    assert [line.split("\t")[0] for line in lines[1:]] == ["007"] * 3 + ["🦊"] * 3 + [" leading"] * 3


def test_recommend_takes_users_from_a_file_and_keeps_their_order(workspace: Path, tmp_path: Path) -> None:
    asked = ["trailing ", "comma,id", "-minus", 'q"uote', "NULL", "7", "007"]
    (tmp_path / "users.txt").write_text("\n".join(asked) + "\n", encoding="utf-8")
    path = tmp_path / "lists.parquet"
    flags = ("--run", workspace / "run", "--users-file", tmp_path / "users.txt", "--k", 2)
    call("recommend", *flags, "--output", path)
    assert pl.read_parquet(path)["user_id"].to_list() == [user for user in asked for _ in range(2)]


def test_recommend_gives_every_unseen_item_where_k_is_beyond_the_catalogue(
    workspace: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lists.parquet"
    call("recommend", "--run", workspace / "run", "--users", "007", "--k", 500, "--output", path)
    assert len(pl.read_parquet(path)) == len(ITEMS) - 12


def test_recommend_leaves_out_titles_where_the_data_has_none(workspace: Path, tmp_path: Path) -> None:
    call("prepare", "--interactions", workspace / "events.csv", "--output", tmp_path / "data")
    call("pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--epochs", 1)
    call("recommend", "--run", tmp_path / "run", "--all", "--output", tmp_path / "lists.csv")
    assert pl.read_csv(tmp_path / "lists.csv").columns == ["user_id", "item_id", "rank", "score"]


def test_recommending_after_pretraining_alone_works(pretrained: Path, tmp_path: Path) -> None:
    call("recommend", "--run", pretrained, "--all", "--k", 3, "--output", tmp_path / "lists.parquet")
    assert len(pl.read_parquet(tmp_path / "lists.parquet")) == 3 * len(USERS)


def test_as_many_items_as_there_are_may_be_asked_for_and_more(
    popularity_workspace: Path, tmp_path: Path
) -> None:
    flags = ("--run", popularity_workspace / "run", "--all", "--k", 10**18)
    call("recommend", *flags, "--output", tmp_path / "lists.csv")


def test_recommend_allows_and_denies_items(workspace: Path, tmp_path: Path) -> None:
    allowed, denied = ITEMS[:12], ITEMS[3:6]
    (tmp_path / "allow.txt").write_text("\n".join(allowed), encoding="utf-8")
    (tmp_path / "deny.txt").write_text("\n".join(denied), encoding="utf-8")
    flags = ("--run", workspace / "run", "--all", "--k", len(ITEMS))
    call("recommend", *flags, "--output", tmp_path / "full.parquet")
    filters = ("--allow", tmp_path / "allow.txt", "--deny", tmp_path / "deny.txt")
    call("recommend", *flags, *filters, "--output", tmp_path / "filtered.parquet")
    full, filtered = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("full", "filtered"))
    kept = full.filter(pl.col("item_id").is_in(allowed) & ~pl.col("item_id").is_in(denied))
    columns = ["user_id", "item_id", "title"]
    assert filtered.select(columns).equals(kept.select(columns))
    np.testing.assert_allclose(filtered["score"], kept["score"], rtol=1e-6)
    ranks = filtered.select(pl.col("rank"), pl.int_range(1, pl.len() + 1).over("user_id").alias("expected"))
    assert ranks["rank"].equals(ranks["expected"].rename("rank"))


def test_a_file_of_ids_may_have_a_byte_order_mark_other_line_ends_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes("\ufeff007\r\n\r\né\r\n".encode())
    assert read_ids(str(tmp_path / "ids")) == ["007", "é"]


@pytest.mark.parametrize("flag", ["--allow", "--deny"])
def test_files_of_items_that_cannot_be_used_are_refused_in_one_line(
    flag: str, popularity_workspace: Path, tmp_path: Path
) -> None:
    known = pl.read_csv(popularity_workspace / "items.csv")["item_id"][0]
    (tmp_path / "unknown.txt").write_text(f"{known}\nno such item\n", encoding="utf-8")
    (tmp_path / "latin").write_bytes(b"\xe9\n")
    for file, message in (
        ("none.txt", "none.txt: there is no such file"),
        ("latin", "latin: not UTF-8 text"),
        ("unknown.txt", "unknown.txt: item 'no such item' is not in the data (1 of 2 unknown)"),
    ):
        line = refusal("recommend", "--run", popularity_workspace / "run", "--all", flag, tmp_path / file)
        assert message in line
        assert "\n" not in line


def test_filters_that_leave_nothing_are_refused(popularity_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    known = pl.read_csv(popularity_workspace / "items.csv")["item_id"][0]
    (tmp_path / "single.txt").write_text(f"{known}\n", encoding="utf-8")
    flags = ("--run", popularity_workspace / "run", "--all")
    nothing = refusal("recommend", *flags, "--allow", tmp_path / "empty.txt")
    assert nothing == "--allow leaves no item to recommend"
    both = ("--allow", tmp_path / "single.txt", "--deny", tmp_path / "single.txt")
    assert refusal("recommend", *flags, *both) == "--allow and --deny leave no item to recommend"


def test_histories_of_today_need_no_dataset(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was moved to a machine without its dataset serves users it never saw."""
    shutil.copytree(workspace / "run", tmp_path / "run")
    description = RunFolder(tmp_path / "run").description
    elsewhere = replace(description.dataset, path=str(tmp_path / "nowhere"))
    (tmp_path / "run" / "run.json").write_text(signed_text(replace(description, dataset=elsewhere)))
    rows = [{"user": "new", "item": item, "time": time} for time, item in enumerate(ITEMS[:3])]
    write_csv(tmp_path / "today.csv", [*rows, {"user": "007", "item": ITEMS[4], "time": 0}])
    call("recommend", "--run", tmp_path / "run", "--histories", tmp_path / "today.csv", "--k", 4)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[0] for line in lines] == ["new"] * 4 + ["007"] * 4
    expected = load(workspace / "run").recommend(histories=[ITEMS[:3], [ITEMS[4]]], k=4)
    assert [line[1] for line in lines] == expected["item_id"].to_list()
    missing = refusal("recommend", "--run", tmp_path / "run", "--all")
    assert "nowhere" in missing


def test_users_without_a_list_are_named_and_ratings_of_histories_too(
    workspace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"user": "z", "item": item, "rating": 1} for item in ITEMS[:2]]
    write_csv(tmp_path / "today.csv", [*rows, {"user": "y", "item": ITEMS[0], "rating": 5}])
    (tmp_path / "allowed.txt").write_text("\n".join(ITEMS[:2]))
    files = ("--histories", tmp_path / "today.csv", "--allow", tmp_path / "allowed.txt")
    call("recommend", "--run", workspace / "run", *files, "--output", tmp_path / "lists.csv")
    assert pl.read_csv(tmp_path / "lists.csv")["user_id"].to_list() == ["y"]
    rated, without = caplog.messages[-2:]
    assert rated.endswith("ratings are not read, every event counts as liked: leave out those that do not")
    assert without == "no item is left for 1 user, who has no list: z"


def test_ids_are_read_from_pipes_and_not_from_folders(popularity_workspace: Path, tmp_path: Path) -> None:
    flags = ("--run", popularity_workspace / "run", "--all", "--output", tmp_path / "lists.csv", "--allow")
    reading, writing = os.pipe()
    item = (popularity_workspace / "items.csv").read_text().splitlines()[1].split(",")[0]
    os.write(writing, f"{item}\n".encode())
    os.close(writing)
    call("recommend", *flags, f"/dev/fd/{reading}")
    os.close(reading)
    assert set(pl.read_csv(tmp_path / "lists.csv", infer_schema=False)["item_id"]) == {item}
    assert refusal("recommend", *flags, tmp_path) == f"{tmp_path} is a folder: name a file"
    assert refusal("recommend", *flags, tmp_path / "none") == f"{tmp_path / 'none'}: there is no such file"


def test_columns_of_histories_may_be_named(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "today.txt").write_text("".join(f"{item};visitor\n" for item in ITEMS[:3]))
    files = ("--histories", tmp_path / "today.txt", "--output", tmp_path / "lists.parquet", "--k", 4)
    layout = ("--columns", "item_id=1,user_id=2", "--no-header", "--separator", ";")
    call("recommend", "--run", workspace / "run", *files, *layout)
    expected = load(workspace / "run").recommend(histories=[ITEMS[:3]], k=4)
    assert pl.read_parquet(tmp_path / "lists.parquet")["item_id"].equals(expected["item_id"])
    message = refusal("recommend", "--run", workspace / "run", "--all", "--separator", ";")
    assert message == "--separator says how a table is read, and there is none: give --histories too"


def test_histories_may_repeat_differ_and_fulfil_a_condition(workspace: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "today.csv", [{"user": "new", "item": item} for item in ITEMS[:3]])
    flags = ("--where", 'not title.contains("item_7")', "--repeats", "--diversity", 0.5, "--k", 30)
    files = ("--histories", tmp_path / "today.csv", "--output", tmp_path / "lists.parquet")
    call("recommend", "--run", workspace / "run", *flags, *files)
    items = pl.read_parquet(tmp_path / "lists.parquet")["item_id"].to_list()
    assert sorted(items) == sorted(set(ITEMS) - {"item_7"})
    where, options = flags[1], {"repeats": True, "diversity": 0.5}
    model = load(workspace / "run")
    assert model.recommend(histories=[ITEMS[:3]], k=30, where=where, **options)["item_id"].to_list() == items


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--all", "--histories", "today.csv"], "name the users with one of --users A,B"),
        (["--histories", "today.csv", "--dataset", "data"], "data is not a dataset folder"),
        (["--histories", "empty.csv"], "empty.csv: the file has a header and no rows"),
        (["--wish", "title", "--diversity", "0.5"], "a --wish alone takes neither --dataset nor --repeats"),
        (["--histories", "none.csv"], "none.csv: there is no such file"),
        (["--histories", "today.csv"], "item 'unknown' of the histories is none of the model's items"),
        (["--all", "--wish", "unheard"], "--wish 'unheard': the items' texts have none of its words"),
        (["--all", "--wish", ""], "--wish '' has no word: write what items are about"),
        (["--k", "3"], "or give a --wish alone: none of them given"),
        (["--all", "--where", "year > 1990"], "--where 'year > 1990': the items have no column 'year', but"),
        (["--all", "--where", "title"], "--where 'title' cannot be read ('title' is no condition)"),
        (["--all", "--where", 'title == "none"'], "--where leaves no item to recommend"),
        (["--all", "--diversity", "2"], "--diversity is 2.0: it may not be above 1"),
    ],
)
def test_histories_and_filters_that_cannot_be_used_are_refused(
    flags: list[str], line: str, popularity_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "today.csv", [{"user_id": "new", "item_id": "unknown"}])
    (tmp_path / "empty.csv").write_text("user_id,item_id\n")
    monkeypatch.chdir(tmp_path)
    refused = refusal("recommend", "--run", popularity_workspace / "run", *flags)
    assert line in refused
    assert "\n" not in refused


def test_a_wish_needs_no_user(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("recommend", "--run", workspace / "run", "--wish", "item_7")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:3] for line in lines[1:]] == [["0", "item_7", "1"]]
    call("recommend", "--run", workspace / "run", "--users", "007", "--wish", "item_7", "--repeats", "--k", 1)
    assert capsys.readouterr().out.splitlines()[1].split("\t")[:2] == ["007", "item_7"]
