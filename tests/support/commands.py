"""Commands in this process or as processes, and the one line that refuses them."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cllm4rec.commands import entry
from cllm4rec.commands.dispatch import COMMANDS

MODULES = {command: importlib.import_module(f"cllm4rec.{command}") for command in COMMANDS}


def call(command: str, *arguments: object) -> None:
    """Run a command in this process."""
    MODULES[command].main([str(argument) for argument in arguments])


def refusal(command: str, *arguments: object) -> str:
    """The one line that refuses a command: the text of the error that `entry.run` prints."""
    with pytest.raises(ValueError) as caught:
        call(command, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, *arguments: object
) -> str:
    """The one line on standard error that a refused command ends in, run in this process."""
    monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        entry.run(MODULES[command].main)
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def start(command: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A running process of a command."""
    return subprocess.Popen(
        [sys.executable, "-m", f"cllm4rec.{command}", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=default_signals,
    )


def default_signals() -> None:
    """In a new process: handle SIGINT, which children of a pytest in the background ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_process(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command as typed at a terminal, run to its end."""
    typed = [sys.executable, "-m", f"cllm4rec.{command}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(typed, capture_output=True, text=True, env=environment, timeout=120, check=False)


def assert_refused(ended: subprocess.CompletedProcess[str], *fragments: str) -> None:
    """A process was refused in one line that holds these fragments."""
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    for fragment in fragments:
        assert fragment in lines[0]


def launch(n_processes: int, *arguments: object) -> subprocess.Popen[str]:
    """Python with these arguments in n processes of a CPU, started by Accelerate's launcher if n > 1."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(n_processes)]
    launcher += ["--main_process_port", "0"]
    return subprocess.Popen(
        [sys.executable, *(launcher if n_processes > 1 else []), *map(str, arguments)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_launched(n_processes: int, *arguments: object) -> str:
    """As `launch`, run to its end, which must be a success; the text on standard output."""
    process = launch(n_processes, *arguments)
    try:
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output


def stage_settings(run: Path, stage: str = "pretrain") -> dict[str, dict[str, object]]:
    """The settings of a stage in the description of a run."""
    return dict(json.loads((run / "run.json").read_text())["stages"][stage])
