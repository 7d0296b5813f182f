"""Signals end a command in silence, with the usual exit status."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commands import start


def began(process: subprocess.Popen[str]) -> bool:
    """Whether Python has begun to import the package, by its verbose log of imports."""
    assert process.stderr is not None
    return any(
        "cllm4rec.commands.signals" in line and "import" in line for line in iter(process.stderr.readline, "")
    )


FLAGS = {
    "prepare": "--interactions {0}/events.csv --output {1}/new",
    "pretrain": "--dataset {0}/data --output {1}/new",
    "finetune": "--run {0}/run --epochs 50",
    "evaluate": "--run {0}/run",
    "recommend": "--run {0}/run --all --output {1}/new.parquet",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", FLAGS)
def test_a_signal_while_libraries_are_imported_ends_a_command_in_silence(
    command: str, number: signal.Signals, popularity_workspace: Path, tmp_path: Path
) -> None:
    flags = FLAGS[command].format(popularity_workspace, tmp_path).split()
    process = start(command, *flags, PYTHONVERBOSE="1")
    assert began(process)
    time.sleep(0.03)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", FLAGS)
def test_a_signal_at_any_moment_ends_a_command_in_silence(
    command: str, number: signal.Signals, popularity_workspace: Path, tmp_path: Path
) -> None:
    """Before the package is imported, Python ends with a traceback; after the last line, with status 0."""
    for moment in range(16):
        folder = tmp_path / str(moment)
        folder.mkdir()
        process = start(command, *FLAGS[command].format(popularity_workspace, folder).split())
        time.sleep(0.1 + moment / 10)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        modules = set(re.findall(r"/cllm4rec/([\w/]+)\.py", said))
        early = modules <= {"__init__", "commands/__init__", "commands/signals"} and (
            "KeyboardInterrupt" in said or process.returncode == -number
        )
        assert process.returncode in (0, 128 + number) or early, (moment, process.returncode, said)
        if command != "pretrain":  # which prints how to resume
            assert said.count("\n") <= 1 or early, (moment, said)
            assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_importing_the_package_leaves_signals_as_they_are() -> None:
    code = """
import signal, sys
def state():
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    return handlers, sys.excepthook, sys.unraisablehook
before = state()
import cllm4rec, cllm4rec.commands.entry, cllm4rec.commands.signals, cllm4rec.pretrain, cllm4rec.recommend
print(state() == before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
