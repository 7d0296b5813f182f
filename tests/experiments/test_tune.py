"""Tuning with the commands of the package: rows, resuming, refusals, test events."""

import csv
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import experiments.tuning.trials as trials
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.models import load
from experiments.commands import CommandFailed, Cost
from experiments.tune import Budget, main
from experiments.tuning.conditions import code_hash
from experiments.tuning.domains import ratios
from experiments.tuning.spaces import SPACES, Space
from experiments.tuning.trials import TrialCommands
from tests.support.commands import call
from tests.support.worlds import with_other_test_events

MEASURED = ("seconds", "cpu_seconds", "peak_mib", "data_sha256", "split_sha256")


def tune(dataset: Path, output: Path, *systems: str, n: int = 3, **settings: Any) -> None:
    arguments = {"search": "random", "seed": 0, "fixed": [], "budget": Budget(trials=n), **settings}
    main(dataset, systems, output=output, **arguments)


def rows(output: Path, system: str) -> list[dict[str, str]]:
    with (output / "books" / f"{system}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def failing(calls: list[tuple[Any, ...]], nth: int, error: BaseException) -> Callable[..., Cost]:
    """Commands the nth of which, from 0, fails."""
    run = trials.run_command

    def fails(command: str, *arguments: object) -> Cost:
        if len(calls) == nth:
            calls.append((command, *arguments))
            raise error
        return run(command, *arguments)

    return fails


def test_rows_and_chosen_settings(data: Path, tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    output = tmp_path / "tuned"
    tune(data, output, "ease", "popularity", n=4)
    assert {path.name for path in (output / "books").iterdir()} == {"ease.csv", "popularity.csv", "chosen.md"}
    ease, popularity = rows(output, "ease"), rows(output, "popularity")
    assert [row["trial"] for row in ease] == ["0", "1", "2", "3"]
    assert [row["origin"] for row in ease] == ["defaults", "random", "random", "random"]
    assert len(popularity) == 1, "it has no settings"
    hashes = Dataset.load(data).hashes
    for row in ease:
        assert (row["dataset"], row["search"], row["seed"]) == ("books/seed0", "random", "0")
        assert (row["data_sha256"], row["split_sha256"]) == (hashes.data_sha256, hashes.split_sha256)
        assert (row["seconds"], row["cpu_seconds"], row["peak_mib"]) == ("12.0", "6.0", "512")
        assert "torch 2" in row["versions"] and 0 < float(row["ndcg@100"]) < 1 and not row["failure"]
    assert ease[0]["settings"] == "{}" and "regularization" in ease[0]["values"], "what fitting chose"
    best = max(ease, key=lambda row: float(row["ndcg@100"]))
    page = (output / "books" / "chosen.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    quality, of_defaults = (f"{float(row['ndcg@100']):.4f}" for row in (best, ease[0]))
    assert ["ease", quality, of_defaults, best["trial"], "4", "0", "0.8", "0.50"] in cells
    regularization = str(json.loads(best["values"])["regularization"])
    assert ["ease", "regularization", regularization] in [line[:3] for line in cells]
    assert best["command"].partition(" && ")[0] in page
    assert not list(tmp_path.glob("**/run.json")), "runs are temporary"


def test_the_command_of_a_row_repeats_it_on_the_whole_dataset(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    tune(data, tmp_path / "tuned", "itemknn", n=2)
    for number, row in enumerate(rows(tmp_path / "tuned", "itemknn")):
        run = tmp_path / f"run{number}"
        line = row["command"].replace('"$DATASET"', str(data)).replace('"$RUN"', str(run))
        for command in line.split(" && "):
            script, name, *arguments = shlex.split(command)
            assert script == "cllm4rec"
            call(name, *arguments)
        result = measure(load(run), Dataset.load(data), "validation", metrics=["ndcg@100"])
        assert result.metrics["ndcg@100"] == float(row["ndcg@100"])


def test_trials_get_no_test_events(data: Path, tmp_path: Path, trained_on: list[Dataset]) -> None:
    """Their dataset folder has none, so other test events change nothing but the hashes."""
    other = tmp_path / "other" / "books" / "seed0"
    with_other_test_events(Dataset.load(data)).save(other)
    assert (
        not Dataset.load(other)
        .test.interactions.matrix.multiply(Dataset.load(data).test.interactions.matrix)
        .nnz
    )
    for name, folder in (("one", data), ("two", other)):
        tune(folder, tmp_path / name, "ease", "itemknn", n=3)
    assert len(trained_on) == 12
    assert all(not len(dataset.test.interactions) for dataset in trained_on)
    assert all(len(dataset.validation.interactions) for dataset in trained_on)
    for system in ("ease", "itemknn"):
        one, two = rows(tmp_path / "one", system), rows(tmp_path / "two", system)
        assert one[0]["data_sha256"] != two[0]["data_sha256"]
        for row, same in zip(one, two, strict=True):
            assert {k: v for k, v in row.items() if k not in MEASURED} == {
                k: v for k, v in same.items() if k not in MEASURED
            }


def test_ended_trials_are_not_run_again(data: Path, tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    output = tmp_path / "tuned"
    tune(data, output, "ease", n=2)
    before = (output / "books" / "ease.csv").read_text()
    tune(data, output, "ease", n=2)
    assert [command for command, *_ in calls] == ["pretrain", "evaluate"] * 2
    tune(data, output, "ease", n=4)
    assert len(calls) == 8
    assert (output / "books" / "ease.csv").read_text().startswith(before)
    tune(data, output, "popularity", n=1)
    assert "| ease " in (output / "books" / "chosen.md").read_text(), "systems of earlier calls stay"


def test_a_row_has_the_hash_of_the_code_it_was_measured_with(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(data, tmp_path / "tuned", "ease", n=1)
    monkeypatch.setattr(trials, "code_hash", lambda: "changed")
    tune(data, tmp_path / "tuned", "ease", n=2)
    before, now = (row["code_sha256"] for row in rows(tmp_path / "tuned", "ease"))
    assert (before, now) == (code_hash(), "changed")
    page = (tmp_path / "tuned" / "books" / "chosen.md").read_text()
    assert f"code_sha256 {before} and changed" in page


def test_an_interrupted_trial_starts_afresh(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trials, "run_command", failing(calls, 3, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            tune(data, tmp_path / "tuned", "ease")
    assert len(rows(tmp_path / "tuned", "ease")) == 1
    tune(data, tmp_path / "tuned", "ease")
    assert [command for command, *_ in calls] == ["pretrain", "evaluate"] * 4
    tune(data, tmp_path / "whole", "ease")
    assert rows(tmp_path / "tuned", "ease") == rows(tmp_path / "whole", "ease")


def test_a_failed_trial_is_reported_and_not_fatal(
    data: Path,
    tmp_path: Path,
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, cost = tmp_path / "tuned", Cost(1.0, 0.5, 9000.0)
    monkeypatch.setattr(trials, "run_command", failing(calls, 2, CommandFailed(-9, cost)))
    tune(data, output, "ease")
    found = rows(output, "ease")
    assert [bool(row["ndcg@100"]) for row in found] == [True, False, True]
    assert (found[1]["failure"], found[1]["peak_mib"]) == ("pretrain failed with status -9", "9000")
    assert "- ease, trial 1: pretrain failed with status -9" in (output / "books" / "chosen.md").read_text()
    assert "ease, trial 1: pretrain failed with status -9" in capsys.readouterr().out
    n_calls = len(calls)
    tune(data, output, "ease")
    assert len(calls) == n_calls, "it is not run again"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed '0', not '1'"),
        ({"search": "grid"}, "search 'random', not 'grid'"),
        ({"fixed": ["regularization=9"]}, "fixed"),
    ],
)
def test_rows_of_other_conditions_are_refused(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]], changed: dict[str, Any], named: str
) -> None:
    output = tmp_path / "tuned"
    tune(data, output, "ease", n=1)
    before = (output / "books" / "ease.csv").read_bytes()
    n_calls = len(calls)
    with pytest.raises(SystemExit, match=rf"ease\.csv was measured with {named}.*another --output"):
        tune(data, output, "popularity", "ease", **changed)
    assert (output / "books" / "ease.csv").read_bytes() == before and len(calls) == n_calls


def test_rows_of_other_data_threads_and_spaces_are_refused(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "tuned"
    tune(data, output, "ease", n=2)
    other = tmp_path / "other" / "books" / "seed0"
    with_other_test_events(Dataset.load(data)).save(other)
    with pytest.raises(SystemExit, match="was measured with data_sha256"):
        tune(other, output, "ease")
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        with pytest.raises(SystemExit, match="was measured with threads"):
            tune(data, output, "ease")
    with monkeypatch.context() as patch:
        patch.setitem(SPACES, "ease", Space("ease", {"regularization": ratios(1.0, 8.0)}))
        with pytest.raises(SystemExit, match=r"ease\.csv: trial 1 is of another search space"):
            tune(data, output, "ease")
    assert len(calls) == 4


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "system,trial\nease,0\n", "\x00"])
def test_a_file_that_is_no_table_is_refused(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]], text: str
) -> None:
    file = tmp_path / "tuned" / "books" / "ease.csv"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"error: .*ease\.csv is no"):
        tune(data, tmp_path / "tuned", "ease")
    assert file.read_text() == text and not calls


def test_what_cannot_be_tuned_is_refused(data: Path, tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    output = tmp_path / "tuned"
    for fixed in ("regularization", "depth=3", "finetune.epochs=1"):
        with pytest.raises(SystemExit, match=f"error: --fixed {fixed}: give NAME=VALUE of a setting of ease"):
            tune(data, output, "ease", fixed=[fixed])
    Dataset.load(data).train.save(tmp_path / "train")
    with pytest.raises(SystemExit, match="has no validation events"):
        tune(tmp_path / "train", output, "ease")
    assert not output.exists() and not calls


def test_a_wrong_value_of_a_fixed_setting_is_refused_before_a_trial(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: --fixed, ease: .*regularization.*'abc'"):
        tune(data, tmp_path / "tuned", "ease", fixed=["regularization=abc"])
    assert not (tmp_path / "tuned").exists()


def test_fixed_settings_are_typed_and_not_searched(
    data: Path, tmp_path: Path, calls: list[tuple[Any, ...]]
) -> None:
    tune(data, tmp_path / "tuned", "itemknn", "popularity", n=2, fixed=["neighbours=7", "decay=0.9"])
    for row in rows(tmp_path / "tuned", "itemknn"):
        assert "--neighbours 7 --decay 0.9" in row["command"] and "neighbours" not in row["settings"]
    assert rows(tmp_path / "tuned", "popularity")[0]["fixed"] == "{}", "it has neither"


def test_flags_of_stages_and_seed() -> None:
    commands = TrialCommands("cllm4rec", {"max_minutes": "2", "finetune.epochs": "9"}, seed=5)
    of = commands.of({"mutual": 2.0, "finetune.learning_rate": 1e-3}, "DATA", "RUN")
    assert list(of) == ["pretrain", "finetune", "evaluate"]
    assert " ".join(of["pretrain"]) == (
        "--dataset DATA --output RUN --system cllm4rec --seed 5 --max-minutes 2 --mutual 2.0"
    )
    assert " ".join(of["finetune"]) == "--run RUN --epochs 9 --learning-rate 0.001"
    assert " ".join(of["evaluate"]) == "--run RUN --split validation --metrics ndcg@100"
    ease = TrialCommands("ease", {"sparse": "true", "dense": False}, seed=5).of({}, "DATA", "RUN")
    assert " ".join(ease["pretrain"]) == "--dataset DATA --output RUN --system ease --sparse"


@pytest.mark.slow
def test_both_stages_of_cllm4rec(data: Path, tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    fixed = ["epochs=1", "finetune.epochs=1", "content_ratio=0"]
    tune(data, tmp_path / "tuned", "cllm4rec", n=2, fixed=fixed)
    assert [command for command, *_ in calls] == ["pretrain", "finetune", "evaluate"] * 2
    first, second = rows(tmp_path / "tuned", "cllm4rec")
    assert '"finetune.learning_rate": 0.0003' in first["values"], "the default"
    assert second["settings"] == second["values"]


@pytest.mark.slow
def test_the_command_from_end_to_end(data: Path, tmp_path: Path) -> None:
    """Trials in processes of their own; one of them fails."""
    typed = ["--systems", "ease-text", "popularity", "--trials", "2", "--fixed", "encoder=no-such-model"]
    line = [sys.executable, "-m", "experiments.tune", "--dataset", data, "--output", tmp_path / "tuned"]
    ended = subprocess.run([*line, *typed], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "no-such-model" in ended.stderr
    failed, row = (rows(tmp_path / "tuned", system)[0] for system in ("ease-text", "popularity"))
    assert failed["failure"] == "pretrain failed with status 2" and not failed["ndcg@100"]
    for each in (failed, row):
        assert float(each["cpu_seconds"]) > 0 and float(each["peak_mib"]) > 20
    assert "# Chosen settings: books/seed0" in ended.stdout
    refused = {
        (): "one of the arguments --trials --minutes is required",
        ("--trials", "0"): "invalid positive int value: '0'",
        ("--trials", "2", "--minutes", "1"): "not allowed with",
    }
    for flags, named in refused.items():
        ended = subprocess.run([*line, *flags], capture_output=True, text=True, check=False)
        assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1 and named in ended.stderr
