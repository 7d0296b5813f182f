"""Evaluate: the result file, the table of users, the protocol."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import PROTOCOL, bootstrap_interval, measure
from cllm4rec.evaluation.slices import BY_ACTIVITY, BY_DAY, BY_POPULARITY, FEW_OF_ITEM
from cllm4rec.models import load
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.commands.events import ITEMS, USERS
from tests.support.commands import call, refusal


def metric_names(*families: str) -> set[str]:
    return {f"{family}@{k}" for family in families for k in (10, 20, 40, 100)}


MEANS_OVER_USERS = metric_names("recall", "ndcg", "hit_rate", "mrr", "novelty", "popularity_share")


def evaluated(run: Path, folder: Path, *flags: object) -> dict[str, Any]:
    """The JSON file that the command writes."""
    call("evaluate", "--run", run, "--json", folder / "r.json", *flags)
    result: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return result


def test_evaluate_writes_one_json_with_fixed_keys_and_a_row_a_user(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated(workspace / "run", tmp_path, "--per-user", tmp_path / "u.parquet")
    keys = {
        "system", "stage", "settings", "diversity", "dataset", "split", "protocol", "input", "n_users",
        "n_items", "metrics", "intervals", "slices", "against", "seconds", "users_per_second",
    }  # fmt: skip
    assert set(result) == keys
    assert set(result["metrics"]) == MEANS_OVER_USERS | metric_names("gini", "coverage")
    assert (result["system"], result["stage"], result["split"]) == ("cllm4rec", "finetune", "test")
    assert result["protocol"] == PROTOCOL
    assert Path(result["dataset"]) == (workspace / "data").resolve()
    assert (result["n_users"], result["n_items"]) == (len(USERS), len(ITEMS))
    assert set(result["intervals"]) == MEANS_OVER_USERS
    for name, (low, high) in result["intervals"].items():
        assert low <= result["metrics"][name] <= high
    table = pl.read_parquet(tmp_path / "u.parquet")
    assert table.columns[0] == "user_id"
    assert set(table.columns[1:]) == MEANS_OVER_USERS
    assert sorted(table["user_id"]) == sorted(USERS)
    for name in MEANS_OVER_USERS:
        assert table[name].mean() == pytest.approx(result["metrics"][name])
    kinds = {each["by"] for each in result["slices"]}
    assert kinds == {BY_ACTIVITY, BY_POPULARITY, BY_DAY, FEW_OF_ITEM}, "all users have five events"
    for each in result["slices"]:
        assert set(each) == {"by", "lowest", "highest", "n_users", "metrics"}
    low, high = result["intervals"]["ndcg@100"]
    cell = f"{result['metrics']['ndcg@100']:.4f} ±{(high - low) / 2:.4f}".replace("0.", ".")
    printed = capsys.readouterr().out
    assert cell in printed
    assert PROTOCOL in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert "by input events" not in printed


def test_evaluate_measures_by_the_protocol(workspace: Path, tmp_path: Path) -> None:
    dataset, model = Dataset.load(workspace / "data"), load(workspace / "run")
    for split in ("test", "validation"):
        result = evaluated(workspace / "run", tmp_path, "--split", split)
        assert result["metrics"] == pytest.approx(measure(model, dataset, split).metrics)
        assert result["split"] == split


def test_metrics_list_lengths_and_slices_are_chosen(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--metrics", "recall, coverage,ndcg@7", "--ks", "3,5", "--slices")
    result = evaluated(workspace / "run", tmp_path, *flags)
    names = ["recall@3", "recall@5", "coverage@3", "coverage@5", "ndcg@7"]
    assert list(result["metrics"]) == names
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "@3" in line][0] == ["@3", "@5", "@7"]
    for kind in (BY_ACTIVITY, BY_POPULARITY, BY_DAY):
        group = [each for each in result["slices"] if each["by"] == kind]
        start = lines.index(f"by {kind}:")
        assert lines[start + 2].split() == ["users", *(str(each["n_users"]) for each in group)]
        assert [line.split()[0] for line in lines[start + 3 : start + 6]] == [
            "recall@3",
            "recall@5",
            "ndcg@7",
        ]


def test_settings_other_than_the_defaults_are_named(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--system", "ease", "--dataset", workspace / "data", "--regularization", 40)
    call("pretrain", *flags, "--output", tmp_path / "run")
    capsys.readouterr()
    result = evaluated(tmp_path / "run", tmp_path)
    assert result["settings"] == {"regularization": 40.0}
    assert "settings other than the defaults: regularization 40.0" in capsys.readouterr().out
    assert evaluated(workspace / "run", tmp_path)["settings"] == {}
    assert "settings other" not in capsys.readouterr().out


def test_runs_are_compared_by_user(
    workspace: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables, results = [], []
    for run in (workspace / "run", pretrained):
        flags = ("--per-user", tmp_path / "u.parquet", "--against", pretrained)
        results.append(evaluated(run, tmp_path, *flags))
        tables.append(pl.read_parquet(tmp_path / "u.parquet"))
    against = results[0]["against"]
    assert (against["run"], against["system"], against["stage"]) == (str(pretrained), "cllm4rec", "pretrain")
    assert against["metrics"] == results[1]["metrics"]
    for name, difference in against["differences"].items():
        assert difference["mean"] == results[0]["metrics"][name] - results[1]["metrics"][name]
        if name in MEANS_OVER_USERS:
            paired = tables[0][name] - tables[1][name]
            assert difference["interval"] == pytest.approx(bootstrap_interval(paired.to_numpy()))
        else:
            assert difference["interval"] is None
    assert set(against["differences"]) == set(against["metrics"])
    same = results[1]["against"]["differences"]["recall@10"]
    assert same == {"mean": 0.0, "interval": [0.0, 0.0]}
    printed = capsys.readouterr().out
    assert f"minus cllm4rec after pretrain of {pretrained}, paired by user:" in printed
    assert "+.0000 [+.0000, +.0000]" in printed
    difference = against["differences"]["ndcg@20"]
    values = [
        f"{value:+.4f}".replace("0.", ".", 1) for value in (difference["mean"], *difference["interval"])
    ]
    assert "{} [{}, {}]".format(*values) in printed
    assert "[low, high] is the 95 % bootstrap interval of the mean difference over users." in printed
    assert max(map(len, printed.replace(str(pretrained), "").splitlines())) <= 100


def test_runs_of_other_data_or_another_split_are_not_compared(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "fewer.csv").write_text(
        "".join((workspace / "events.csv").read_text().splitlines(keepends=True)[:-5])
    )
    cases = (
        (
            "split",
            ["--interactions", workspace / "events.csv", "--items", workspace / "items.csv", "--seed", 1],
        ),
        ("dataset", ["--interactions", tmp_path / "fewer.csv"]),
    )
    for kind, flags in cases:
        data, other = tmp_path / f"{kind}-data", tmp_path / kind
        call("prepare", *flags, "--output", data)
        call("pretrain", "--system", "popularity", "--dataset", data, "--output", other)
        line = refusal("evaluate", "--run", workspace / "run", "--against", other)
        assert line.startswith(f"--against {other} was trained on another {kind}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metrics", "recal"], "--metrics holds 'recal', which is unknown: take recall, ndcg"),
        (["--ks", "5,x"], "--ks is '5,x': give list lengths separated by commas"),
        (["--ks", "0"], "recall@0 cannot be measured: a list has 1 to"),
        (["--ks", "5", "--candidates", "5"], "--metrics, --ks, --slices and --diversity are of the full"),
        (["--seed", "7"], "--seed 7 is of choices among candidates: say how many by --candidates"),
        (["--draws", "9"], "--draws 9 is of choices among candidates: say how many by --candidates"),
        (["--by", "likelihood"], "--by likelihood is of choices among candidates: say how many by --cand"),
        (["--by", "language"], "cllm4rec chooses by scores, not by language: leave --by out"),
        (["--metrics", "gini", "--slices"], "--slices needs a metric with a value of each user"),
        (["--metrics", "coverage,gini@3", "--per-user", "u.csv"], "--per-user needs a metric with a value"),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused(flags: list[str], message: str, workspace: Path) -> None:
    assert refusal("evaluate", "--run", workspace / "run", *flags).startswith(message)


def test_singular_nouns_are_printed_for_single_counts(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    call("evaluate", "--run", workspace / "run", "--candidates", 5, "--draws", 1)
    assert "; 1 draw of them averaged (seed 0)" in capsys.readouterr().out
    flags = ("--users", "007", "--k", 1, "--output", tmp_path / "lists.csv")
    with caplog.at_level("INFO"):
        call("recommend", "--run", workspace / "run", *flags)
    assert caplog.messages == [f"1 row for 1 user -> {tmp_path / 'lists.csv'}"]


def test_a_dataset_that_moved_is_found_with_its_flag(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "run", tmp_path / "run")
    description = RunFolder(tmp_path / "run").description
    moved = replace(description, dataset=replace(description.dataset, path=str(tmp_path / "gone")))
    (tmp_path / "run" / "run.json").write_text(signed_text(moved))
    with pytest.raises(ValueError, match="gone"):
        call("evaluate", "--run", tmp_path / "run")
    call("evaluate", "--run", tmp_path / "run", "--dataset", workspace / "data")
    call("recommend", "--run", tmp_path / "run", "--dataset", workspace / "data", "--users", "x")


def test_evaluate_prints_what_diversity_costs(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics of the lists that `rank` makes, and their differences from lists without diversity."""
    result = evaluated(workspace / "run", tmp_path, "--diversity", 0.7)
    dataset, model = Dataset.load(workspace / "data"), load(workspace / "run")
    plain = measure(model, dataset).metrics
    diverse = measure(model, dataset, diversity=0.7).metrics
    assert plain != diverse
    assert result["metrics"] == pytest.approx(diverse)
    assert result["diversity"] == 0.7
    for name, difference in result["against"]["differences"].items():
        assert difference["mean"] == pytest.approx(diverse[name] - plain[name], abs=1e-12)
    printed = capsys.readouterr().out
    assert "lists of diversity 0.7: by maximal marginal relevance over item vectors" in printed
    assert f"of {workspace / 'run'} without diversity, paired by user:" in printed


def test_systems_without_item_vectors_refuse_diversity(popularity_workspace: Path) -> None:
    for command in ("evaluate", "recommend --all"):
        flags = (*command.split(), "--run", popularity_workspace / "run", "--diversity", 0.5)
        assert refusal(*flags) == (
            "popularity has no item vectors, which --diversity, similar and the map need: take another system"
        )
