"""Commands of the experiments: what a failure tells, and interruptions."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from experiments import commands
from experiments.commands import CommandFailed, ends_in_one_line, run_command

EXPERIMENTS = Path(commands.__file__).parent


def test_an_interruption_ends_the_command_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def recorded(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **settings))
        return started[-1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands.subprocess, "Popen", recorded)
        patch.setattr(os, "wait4", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_command("pretrain", "--help")
    assert len(started) == 1 and started[0].returncode is not None


def test_several_processes_are_started_by_a_launcher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def record(line: list[str]) -> None:
        started.append(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.subprocess, "Popen", record)
    for processes in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_command("evaluate", "--run", "r", processes=processes)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    plain, launched = ([*line[1:]] for line in started)
    assert plain == ["-m", "cllm4rec.evaluate", "--run", "r"]
    assert launched == [*launcher, "-m", "cllm4rec.evaluate", "--", "--run", "r"]
    assert f"$ python {' '.join(launched)}" in capsys.readouterr().out


def test_a_mistake_and_an_interruption_end_in_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: give another$"), ends_in_one_line():
        raise ValueError("give another")
    with (
        pytest.raises(SystemExit, match=r"^interrupted: the same command goes on$"),
        ends_in_one_line("goes on"),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), ends_in_one_line():
        raise KeyboardInterrupt


def test_sigterm_interrupts_within_the_block_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match=r"^interrupted: .* goes on$"), ends_in_one_line("goes on"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def mains() -> list[Path]:
    """The modules of `experiments` that are programs."""
    return [file for file in sorted(EXPERIMENTS.rglob("*.py")) if '__main__"' in file.read_text()]


@pytest.mark.parametrize("file", mains(), ids=lambda file: str(file.relative_to(EXPERIMENTS)))
def test_every_program_has_a_block_that_ends_in_one_line(file: Path) -> None:
    """`first_list.py` is a child of another program, which reads its output."""
    block = file.read_text().partition('if __name__ == "__main__":')[2]
    assert re.search(r"with ends_in_one_line\(|run\(main\)", block) or file.name == "first_list.py"


def test_errors_of_the_file_system_end_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"^error: \[Errno \d+\] Not a directory: .*"), ends_in_one_line():
        (tmp_path / "file" / "folder").mkdir()
    with pytest.raises(ZeroDivisionError), ends_in_one_line():
        print(1 / 0)


@pytest.mark.slow
def test_a_failure_has_status_and_cost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandFailed, match="the command above failed with status 2") as caught:
        run_command("evaluate", "--run", tmp_path / "nowhere")
    assert caught.value.status == 2
    assert caught.value.cost.cpu_seconds > 0 and caught.value.cost.peak_mib > 10
    assert "error: " in capfd.readouterr().err
