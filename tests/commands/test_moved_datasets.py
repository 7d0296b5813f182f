"""A dataset that has moved is named in the printed command that resumes a stage."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.commands import call
from tests.support.interruption import StopAfter


def printed_command(
    after: int,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> list[str]:
    """Stop a command after a number of steps; returns the command that it prints for resuming."""
    caplog.clear()
    with monkeypatch.context() as patch, caplog.at_level("INFO"), pytest.raises(SystemExit):
        patch.setattr("cllm4rec.commands.stages.StopRequest.__call__", StopAfter(after).__call__)
        call(*command)
    return shlex.split(caplog.text.strip().splitlines()[-1].split("resume with: cllm4rec ")[1])


def test_pretraining_resumes_as_printed(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, run, moved = tmp_path / "data", str(tmp_path / "run"), str(tmp_path / "it is here")
    shutil.copytree(workspace / "data", data)
    flags = ["--system", "sasrec", "--dataset", str(data), "--output", run, "--epochs", "3"]
    command = printed_command(2, ["pretrain", *flags], monkeypatch, caplog)
    assert command == ["pretrain", "--output", run, "--resume"]
    data.rename(moved)
    with pytest.raises(ValueError, match="no longer in .*data: say where with --dataset"):
        call(*command)
    command = printed_command(1, [*command, "--dataset", moved], monkeypatch, caplog)
    assert command == ["pretrain", "--output", run, "--resume", "--dataset", moved]
    call(*command)
    assert (tmp_path / "run" / "pretrain" / "model.json").is_file()


def test_finetuning_resumes_as_printed(
    pretrained: Path,
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, moved = str(tmp_path / "run"), str(tmp_path / "it is here")
    shutil.copytree(pretrained, run)
    shutil.copytree(workspace / "data", moved)
    flags = ["--run", run, "--dataset", moved, "--epochs", "1"]
    command = printed_command(1, ["finetune", *flags], monkeypatch, caplog)
    assert command == ["finetune", "--run", run, "--resume", "--dataset", moved]
    call(*command)
    assert (tmp_path / "run" / "finetune" / "model.json").is_file()
