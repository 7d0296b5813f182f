"""Changes of defaults: rows and their gain, what is run again, refusals, test events."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import experiments.tuning.trials as trials
from cllm4rec.commands import stage_settings
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS
from cllm4rec.training.run_folder import RunFolder
from experiments import tried
from experiments.commands import CommandFailed, Cost
from experiments.tuning.changes import Change, all_settings
from experiments.tuning.tried_rows import COLUMNS
from tests.support.commands import call
from tests.support.worlds import taste_dataset, with_other_test_events

Calls = list[tuple[Any, ...]]
QUALITY = "ndcg@100"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A second dataset folder."""
    folder = tmp_path / "shop"
    taste_dataset(seed=2).save(folder)
    return folder


def run(
    output: Path, *datasets: Path, changes: tuple[str, ...] = (), **settings: Any
) -> list[dict[str, str]]:
    """Run the command in this process; the rows of its file."""
    arguments = {"system": "itemknn", "seeds": [0], "jobs": 1, **settings}
    tried.main(datasets, changes, output=output, **arguments)
    return rows(output)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def with_defaults(monkeypatch: pytest.MonkeyPatch, **changed: object) -> None:
    """Change defaults of the package."""
    defaults = stage_settings.stage_defaults
    monkeypatch.setattr(stage_settings, "stage_defaults", lambda *a, **k: defaults(*a, **k) | changed)


def commands_of(calls: Calls) -> list[str]:
    return [command for command, *_ in calls]


def cells(text: str) -> list[list[str]]:
    """The cells of the Markdown tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_rows_and_summary(
    data: Path, shop: Path, tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("neighbours=2", "neighbours=9,shrinkage=1.5")
    found = run(tmp_path / "tried.csv", data, shop, changes=changes)
    assert tuple(found[0]) == COLUMNS
    assert [(row["change"], row["dataset"]) for row in found] == [
        (change, dataset) for change in ("", *changes) for dataset in ("books/seed0", "shop")
    ], "a change ends on all datasets before the next one begins"
    assert len({row["defaults_sha256"] for row in found}) == len({row["code_sha256"] for row in found}) == 1
    for row, folder in zip(found, [data, shop] * 3, strict=True):
        hashes = asdict(Dataset.load(folder).hashes)
        assert {name: row[name] for name in hashes} == hashes
        assert (row["seconds"], row["cpu_seconds"], row["peak_mib"]) == ("12.0", "6.0", "512")
        assert "cllm4rec 0" in row["versions"] and 0 < float(row[QUALITY]) < 1
    assert [row["gain"] for row in found[:2]] == ["", ""]
    for row, base in zip(found[2:], found[:2] * 2, strict=True):
        assert row["gain"] == f"{float(row[QUALITY]) - float(base[QUALITY]):+.6f}"
    assert any(float(row["gain"]) for row in found[2:])
    assert json.loads(found[0]["settings"]) == {"neighbours": None, "shrinkage": None, "decay": 1.0}
    assert json.loads(found[-1]["settings"]) == {"neighbours": 9, "shrinkage": 1.5, "decay": 1.0}
    assert "--neighbours 9 --shrinkage 1.5" in found[-1]["command"]
    assert cells(capsys.readouterr().out)[2:] == [
        [f"defaults (validation {QUALITY})", *(f"{float(row[QUALITY]):.4f}" for row in found[:2])],
        *([found[n]["change"], *(f"{float(row['gain']):+.4f}" for row in found[n : n + 2])] for n in (2, 4)),
    ]


def test_seeds(
    data: Path,
    tmp_path: Path,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A gain is that of the same seed; the summary has the mean of seeds and half of their range."""
    with_defaults(monkeypatch, epochs=2)
    changes = ("epochs=1", "latent_width=7,epochs=3")
    found = run(tmp_path / "tried.csv", data, system="multvae", seeds=[3, 4], changes=changes)
    assert [row["seed"] for row in found] == ["3", "4"] * 3
    assert [json.loads(row["settings"])["seed"] for row in found] == [3, 4] * 3
    assert all(f"--seed {row['seed']} " in row["command"] for row in found)
    assert found[0][QUALITY] != found[1][QUALITY]
    gains = [float(row["gain"]) for row in found[2:4]]
    assert gains[1] == pytest.approx(float(found[3][QUALITY]) - float(found[1][QUALITY]), abs=1e-6)
    line = cells(capsys.readouterr().out)[3]
    assert line == ["epochs=1", f"{sum(gains) / 2:+.4f} ± {abs(gains[0] - gains[1]) / 2:.4f}"]


def test_the_command_of_a_row_repeats_it_on_the_whole_dataset(
    data: Path, tmp_path: Path, calls: Calls
) -> None:
    row = run(tmp_path / "tried.csv", data, changes=("neighbours=4,decay=0.8",))[-1]
    line = row["command"].replace('"$DATASET"', str(data)).replace('"$RUN"', str(tmp_path / "run"))
    for command in line.split(" && "):
        _, name, *arguments = shlex.split(command)
        call(name, *arguments, *(["--json", tmp_path / "out.json"] if name == "evaluate" else []))
    assert json.loads((tmp_path / "out.json").read_text())["metrics"][QUALITY] == float(row[QUALITY])


def test_trials_get_no_test_events(data: Path, tmp_path: Path, trained_on: list[Dataset]) -> None:
    other = tmp_path / "other" / "books" / "seed0"
    with_other_test_events(Dataset.load(data)).save(other)
    found = run(tmp_path / "tried.csv", data, other, changes=("neighbours=2",))
    assert len(trained_on) == 4, "their hashes differ"
    assert all(not len(each.test.interactions) and len(each.validation.interactions) for each in trained_on)
    assert [row[QUALITY] for row in found[::2]] == [row[QUALITY] for row in found[1::2]]


def test_ended_trials_are_not_run_again(data: Path, shop: Path, tmp_path: Path, calls: Calls) -> None:
    output = tmp_path / "tried.csv"
    run(output, data, changes=("neighbours=2",))
    before, n_calls = output.read_bytes(), len(calls)
    run(output, data, data, changes=("neighbours=2", "neighbours=02"))
    assert output.read_bytes() == before and len(calls) == n_calls == 4, "settings are compared, not texts"
    run(output, data, changes=("neighbours=3",))
    assert output.read_bytes().startswith(before) and len(calls) == n_calls + 2
    run(output, data, changes=("neighbours=3",), system="itemknn", seeds=[1])
    run(output, shop)
    run(output, data, system="popularity")
    assert len(calls) == n_calls + 10, "another seed, dataset and system"


def test_an_interrupted_call_goes_on(
    data: Path, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("neighbours=2", "neighbours=3")
    run_command = trials.run_command

    def interrupted(command: str, *arguments: object) -> Cost:
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_command(command, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "run_command", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "tried.csv", data, changes=changes)
    assert len(rows(tmp_path / "tried.csv")) == 1
    found = run(tmp_path / "tried.csv", data, changes=changes)
    assert commands_of(calls) == ["pretrain", "evaluate", "pretrain", *["pretrain", "evaluate"] * 2]
    assert found == run(tmp_path / "whole.csv", data, changes=changes)


def test_an_interruption_while_trials_are_submitted_ends_those_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    class First:
        def measured_row(self) -> dict[str, str]:
            return {"ended": str(ended.wait(timeout=60))}

    class Second:
        @property
        def measured_row(self) -> object:
            raise KeyboardInterrupt

    monkeypatch.setattr(tried, "end_commands", ended.set)
    submitted: list[Any] = [First(), Second()]
    with pytest.raises(KeyboardInterrupt):
        list(tried.as_they_end(submitted, jobs=2))
    assert ended.is_set()


def test_a_signal_that_does_not_end_a_wait_ends_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that another thread receives is handled by the main one, whose wait goes on."""
    ended = threading.Event()
    before_their_end: list[bool] = []

    class Signalled:
        def measured_row(self) -> dict[str, str]:
            time.sleep(0.2)  # the main thread waits by now
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            before_their_end.append(ended.wait(timeout=30))
            return {}

    monkeypatch.setattr(tried, "end_commands", ended.set)
    submitted: list[Any] = [Signalled()]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(tried.as_they_end(submitted, jobs=2))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert before_their_end == [True]


def test_a_failed_trial_has_no_gain_and_is_not_run_again(
    data: Path,
    tmp_path: Path,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_command = trials.run_command

    def failing(command: str, *arguments: object) -> Cost:
        if "2" in arguments:
            raise CommandFailed(-9, Cost(1.0, 0.5, 9000.0))
        return run_command(command, *arguments)

    monkeypatch.setattr(trials, "run_command", failing)
    changes = ("neighbours=2", "neighbours=3")
    found = run(tmp_path / "tried.csv", data, changes=changes)
    assert [(row["failure"], bool(row[QUALITY]), bool(row["gain"])) for row in found] == [
        ("", True, False),
        ("pretrain failed with status -9", False, False),
        ("", True, True),
    ]
    assert ["neighbours=2", "failed"] in cells(capsys.readouterr().out)
    n_calls = len(calls)
    assert run(tmp_path / "tried.csv", data, changes=changes) == found and len(calls) == n_calls


def test_what_was_measured_under_other_defaults_is_taken_over(
    data: Path, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change has become the default. Its row is that of the defaults now, and gains are relative to it."""
    output = tmp_path / "tried.csv"
    before = run(output, data, changes=("neighbours=7", "neighbours=3"))
    n_calls = len(calls)
    with_defaults(monkeypatch, neighbours=7)
    with pytest.raises(ValueError, match="neighbours=7: this is what the defaults are"):
        run(output, data, changes=("neighbours=7",))
    found = run(output, data, changes=("neighbours=3", "neighbours=4"))
    assert found[:3] == before and len(calls) == n_calls + 2, "only neighbours=4 was run"
    default, three, four = found[3:]
    assert [row["change"] for row in found[3:]] == ["", "neighbours=3", "neighbours=4"]
    assert {row["defaults_sha256"] for row in found[3:]}.isdisjoint({before[0]["defaults_sha256"]})
    assert default[QUALITY] == before[1][QUALITY] and three[QUALITY] == before[2][QUALITY]
    for row in (three, four):
        assert row["gain"] == f"{float(row[QUALITY]) - float(before[1][QUALITY]):+.6f}"


def test_other_code_than_that_of_the_defaults_is_told(
    data: Path,
    tmp_path: Path,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(tmp_path / "tried.csv", data, changes=("neighbours=2",))
    assert "other code" not in capsys.readouterr().out
    monkeypatch.setattr(trials, "code_hash", lambda: "other")
    run(tmp_path / "tried.csv", data, changes=("neighbours=2", "neighbours=3"))
    assert capsys.readouterr().out.splitlines()[-1].startswith("neighbours=3: measured with other code")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("", "give NAME=VALUE of a setting of cllm4rec"),
        ("depth=3", "give NAME=VALUE of a setting of cllm4rec"),
        ("prior=0,mutual", "give NAME=VALUE of a setting of cllm4rec"),
        ("mask_share=2", "--mask-share is 2.0: it has to be below 1"),
        ("mask_share=x", "--mask-share: invalid float value: 'x'"),
        ("finetune.backbone=small", "--backbone was fixed by pretraining"),
        ("mask_share=0.50", "this is what the defaults are"),
    ],
)
def test_changes_that_are_refused(data: Path, tmp_path: Path, calls: Calls, change: str, named: str) -> None:
    with pytest.raises((SystemExit, ValueError), match="--changes") as refused:
        run(tmp_path / "tried.csv", data, system="cllm4rec", changes=("prior=0", change))
    assert named in str(refused.value) and "\n" not in str(refused.value)
    assert not calls and not (tmp_path / "tried.csv").exists()


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", ",".join(COLUMNS) + "\n1,2\n", "\x00"])
def test_a_file_that_is_no_table_is_refused(data: Path, tmp_path: Path, calls: Calls, text: str) -> None:
    file = tmp_path / "tried.csv"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"error: .*tried\.csv is no table"):
        run(file, data)
    assert file.read_text() == text and not calls


def test_a_dataset_without_validation_events_is_refused(data: Path, tmp_path: Path, calls: Calls) -> None:
    Dataset.load(data).train.save(tmp_path / "train")
    with pytest.raises(SystemExit, match="has no validation events"):
        run(tmp_path / "tried.csv", data, tmp_path / "train")
    assert not calls and not (tmp_path / "tried.csv").exists()


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_settings_of_every_system_are_known(system: str) -> None:
    values = all_settings(trials.TrialCommands(system, {}, seed=0), {})
    assert set(values) == trials.settings_of(system)


@pytest.mark.slow
def test_settings_are_those_that_a_run_records(data: Path, tmp_path: Path) -> None:
    change = Change.typed("epochs=0,mask_share=0.3,finetune.epochs=1,finetune.user_dropping=0.1", "cllm4rec")
    commands = trials.TrialCommands("cllm4rec", {}, seed=5)
    for command, arguments in commands.of(change.settings, data, tmp_path / "run").items():
        if command != "evaluate":
            call(command, *arguments)
    stages = RunFolder.open(tmp_path / "run").description.stages
    assert all_settings(commands, change.settings) == {
        ("" if stage == "pretrain" else f"{stage}.") + name: value
        for stage, settings in stages.items()
        for name, value in {**settings.system, **(settings.training or {})}.items()
    }


@pytest.mark.slow
def test_the_command_from_end_to_end(data: Path, tmp_path: Path) -> None:
    """Several trials at a time, in processes of their own; then one that is interrupted."""
    line = [sys.executable, "-m", "experiments.tried", "--dataset", str(data)]
    line += ["--output", str(tmp_path / "tried.csv"), "--jobs", "2"]
    typed = ["--system", "itemknn", "--changes", "neighbours=3", "neighbours=4"]
    ended = subprocess.run([*line, *typed], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "tried.csv")
    assert {row["change"] for row in found} == {"", "neighbours=3", "neighbours=4"}
    assert all(bool(row["gain"]) == bool(row["change"]) for row in found)
    assert all(float(row["cpu_seconds"]) > 0 and float(row["peak_mib"]) > 20 for row in found)
    assert cells(ended.stdout)[3][0] == "neighbours=3"
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "TMPDIR": str(work)}
    long = [*line, "--changes", "patience=50,finetune.patience=50"]
    process = subprocess.Popen(
        long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    started = 0
    while started < 2:
        assert (shown := process.stdout.readline()), "it has ended"
        started += "cllm4rec.pretrain" in shown
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("interrupted: the same command goes on")
    assert not list(work.iterdir()), "both trials have ended, and their folders are gone"
    assert rows(tmp_path / "tried.csv") == found
