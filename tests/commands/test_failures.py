"""Full disks, little memory, lost processes: one line, and nothing half-written."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch

from cllm4rec.commands import entry, signals, stages
from cllm4rec.commands.failures import LostProcessError, line_of, lost_process, name_flags
from tests.support.commands import call, launch


def little_disk() -> None:
    """Files of at most 2,000 bytes, in the process that is begun."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.mark.parametrize(
    ("command", "flags", "new"),
    [
        ("recommend", "--run {0}/run --all --k 30 --output {1}/new.parquet", "new.parquet"),
        ("recommend", "--run {0}/run --all --k 30 --output {1}/new.csv", "new.csv"),
        ("recommend", "--run {0}/run --all --k 30 --output {1}/new.jsonl", "new.jsonl"),
        ("evaluate", "--run {0}/run --per-user {1}/new.jsonl", "new.jsonl"),
        ("prepare", "--interactions {0}/events.csv --items {0}/items.csv --output {1}/new", "new"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    command: str, flags: str, new: str, popularity_workspace: Path, tmp_path: Path
) -> None:
    filled = flags.format(popularity_workspace, tmp_path).split()
    line = [sys.executable, "-m", f"cllm4rec.{command}", *filled]
    done = subprocess.run(line, capture_output=True, text=True, preexec_fn=little_disk)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: .*File too large.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("Unable to allocate 8.00 TiB for an array"),
     OSError(12, "Cannot allocate memory"),
     RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate"),
     RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
     torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")],
)  # fmt: skip
def test_little_memory_is_named_as_such(error: BaseException) -> None:
    line = line_of(error)
    assert line is not None
    assert line.startswith("not enough memory (")
    assert "--memory" in line
    assert "\n" not in line


def test_a_defect_is_not_reported_as_a_mistake() -> None:
    assert line_of(RuntimeError("shapes differ")) is None
    assert line_of(KeyError("x")) is None
    assert not lost_process(RuntimeError("Connection closed by peer")), "there is no other process"


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("read fewer `title_words`", "read fewer --title-words"),
        ("`k` is 0: ask for more", "--k is 0: ask for more"),
        ("give `separator` ';'", "give --separator ';'"),
        ("give `title_words=8`", "give --title-words 8"),
        ("pass `resume=True`", "pass --resume"),
        ("pass `header=False`", "pass --no-header"),
        ("without `header`", "without --no-header"),
        ("`events` has no rows", "--interactions has no rows"),
        ("`hard` and `hard=3`", "hard and hard=3"),
        ("expected lines of `flag: value`", "expected lines of `flag: value`"),
        ("no backticks: title_words, --k", "no backticks: title_words, --k"),
    ],
)
def test_settings_in_errors_are_printed_as_flags_of_the_command(message: str, printed: str) -> None:
    flags = {"--title-words", "--k", "--separator", "--resume", "--no-header", "--interactions"}
    assert name_flags(message, flags) == printed


def test_an_argument_that_is_no_flag_of_the_command_loses_its_backticks() -> None:
    assert (
        name_flags("give `events` without `header`, `seed`", {"--seed"})
        == "give events without header, --seed"
    )


def test_a_lost_process_is_reported_by_its_line() -> None:
    assert line_of(LostProcessError("resume with: x")) == "resume with: x"


@pytest.mark.parametrize("lost", [True, False])
def test_signals_are_ignored_after_the_loss_of_a_process_alone(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher ends the remaining process, which has yet to print its message."""
    monkeypatch.setattr(stages, "lost_process", lambda error: lost)
    handled: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: handled.append(number))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(RuntimeError), stages.StopRequest().listening():
            raise RuntimeError
        signal.raise_signal(signal.SIGTERM)
        assert handled == ([] if lost else [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)


def test_signals_are_ignored_when_the_loss_of_a_process_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    lost = LostProcessError("resume with: x")

    def main(_: Sequence[str]) -> None:
        signals.listen()
        raise lost

    def exit_(status: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise SystemExit(status)

    monkeypatch.setattr(entry, "lost_process", lambda error: error is lost)
    monkeypatch.setattr(entry.os, "_exit", exit_)
    try:
        with pytest.raises(SystemExit) as ended:
            entry._run(main)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: resume with: x\n"


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_after_a_killed_process_of_two_the_remaining_one_prints_the_resume_command(
    lost: int, popularity_workspace: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    flags = ["--dataset", popularity_workspace / "data", "--output", run, "--learning-rate", "1e-5"]
    process = launch(2, "-m", "cllm4rec.pretrain", *flags, "--epochs", 500, "--patience", 500)
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        if metrics.is_file() and len(metrics.read_text("utf-8").splitlines()) > 1:
            break
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if child.environ().get("RANK") == str(lost)).kill()
    _, printed = process.communicate(timeout=120)
    lines = printed.splitlines()
    resume = f"resume with: python -m cllm4rec.pretrain --output '{run}' --resume"
    assert sum(line.endswith(resume) for line in lines) == 1, printed
    number = next(number for number, line in enumerate(lines) if line.endswith(resume))
    message = "error: another process of this training has ended; what was saved last is kept; "
    assert lines[number].startswith(message)
    assert not any("Traceback" in line for line in lines[:number])
    call("pretrain", "--output", run, "--resume", "--dry-run")
    assert len(json.loads(metrics.read_text("utf-8").splitlines()[0])) > 3
