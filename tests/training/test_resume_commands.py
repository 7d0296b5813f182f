"""Commands that were stopped or killed resume, and end bit for bit as uninterrupted ones."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from cllm4rec import finetune, pretrain
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.files.writing import write_text
from cllm4rec.models import load
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.faults.digests import without_clock
from tests.support.commands import call, refusal, start
from tests.support.interruption import StopAfter

WORLD = taste_world(0, n_users=50, n_items=40, n_events=10)
DATASET = Dataset.from_frame(WORLD.events, WORLD.items, split="random")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "data"
    DATASET.save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """A run of both stages without an interruption."""
    run = data.parent / "whole"
    for stage in ("pretrain", "finetune"):
        call(stage, *flags(stage, data, run))
    return run


def flags(stage: str, data: Path, run: Path) -> list[str]:
    where = ["--dataset", str(data), "--output", str(run)] if stage == "pretrain" else ["--run", str(run)]
    return [*where, "--epochs", "6", "--patience", "6", "--batch-size", "8", "--learning-rate", "0.002"]


def resume_flags(stage: str, run: Path) -> list[str]:
    return ["--output" if stage == "pretrain" else "--run", str(run), "--resume"]


def prepared_run(stage: str, whole: Path, run: Path) -> Path:
    """A run folder before a stage."""
    if stage == "finetune":
        shutil.copytree(whole, run)
        shutil.rmtree(run / "finetune")
        description = RunFolder(run).description
        del description.stages["finetune"]
        write_text(run / "run.json", signed_text(description))
        RunFolder(run).forget("finetune", 0)
    return run


def check_equal(run: Path, whole: Path, stage: str) -> None:
    """Weights, metrics and lists of a stage equal the uninterrupted run's, and no temporary file remains."""
    weights, expected_weights = (folder / stage / "model.safetensors" for folder in (run, whole))
    assert weights.read_bytes() == expected_weights.read_bytes()
    resumed, expected = (
        [without_clock(line.as_json()) for line in RunFolder(folder).metrics() if line.stage == stage]
        for folder in (run, whole)
    )
    assert resumed == expected
    assert RunFolder(run).description.stages[stage] == RunFolder(whole).description.stages[stage]
    if stage == "finetune":
        lists = [load(folder).rank(np.arange(DATASET.n_users), DATASET) for folder in (run, whole)]
        assert np.array_equal(lists[0].items, lists[1].items)
        assert np.array_equal(lists[0].scores, lists[1].scores)
    assert not [file.name for file in run.iterdir() if "state" in file.name or file.name.startswith(".")]


def n_epochs(run: Path, stage: str) -> int:
    """Number of lines of metrics of the stage."""
    return sum(line.stage == stage for line in RunFolder(run).metrics())


def recorded_training(run: Path, stage: str) -> dict[str, Any]:
    """Settings of training in run.json."""
    return RunFolder(run).description.stages[stage].training or {}


def wait_for_epoch(process: subprocess.Popen[str], run: Path, stage: str, n: int) -> None:
    """Until the process has written n lines of metrics for the stage."""
    while process.poll() is None:
        if n_epochs(run, stage) >= n:
            return
        time.sleep(0.01)
    pytest.fail(f"ended before it was stopped: {process.communicate()}")


def wait_for_state(process: subprocess.Popen[str], run: Path, stage: str) -> None:
    while process.poll() is None and not RunFolder(run).resume_file(stage).path.is_file():
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("stage", "number"),
    [("pretrain", signal.SIGTERM), ("finetune", signal.SIGINT)],
    ids=["SIGTERM", "SIGINT"],
)
@pytest.mark.slow
def test_a_signal_ends_a_command_after_its_step_and_prints_how_to_resume(
    stage: str, number: signal.Signals, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = prepared_run(stage, whole, tmp_path / "a run")
    process = start(stage, *flags(stage, data, run))
    wait_for_epoch(process, run, stage, 2)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 128 + number, printed
    assert "Traceback" not in printed
    last = printed.strip().splitlines()[-1]
    assert "all of it is saved; resume with: " in last
    command = last.split("resume with: ")[1]
    folder_flag = "--output" if stage == "pretrain" else "--run"
    assert command == f"python -m cllm4rec.{stage} {folder_flag} '{run}' --resume"
    description = RunFolder(run).resume_file(stage).describe()
    assert description is not None and description.progress.epoch >= 2
    call(stage, *resume_flags(stage, run))
    check_equal(run, whole, stage)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.slow
def test_three_kills_at_random_moments_change_nothing(
    stage: str, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = prepared_run(stage, whole, tmp_path / "run")
    generator = np.random.default_rng([3, len(stage)])
    arguments = flags(stage, data, run)
    for kill in range(3):
        process = start(stage, *arguments)
        wait_for_state(process, run, stage)
        wait_for_epoch(process, run, stage, kill)
        moment = time.monotonic() + generator.uniform(0, 1.2)
        while (
            time.monotonic() < moment and n_epochs(run, stage) < 4
        ):  # of six: even a fast machine is still training
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        description = RunFolder(run).resume_file(stage).describe()
        assert description is not None, "a whole state exists at any moment"
        RunFolder(run).description, RunFolder(run).metrics()
        arguments = resume_flags(stage, run)
    call(stage, *arguments)
    check_equal(run, whole, stage)


@pytest.fixture
def interrupted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run whose pretraining was stopped in its second epoch."""
    with monkeypatch.context() as patch:
        patch.setattr("cllm4rec.commands.stages.StopRequest.__call__", StopAfter(20).__call__)
        with pytest.raises(SystemExit):
            pretrain.main(flags("pretrain", data, tmp_path / "run"))
    yield tmp_path / "run"


def test_a_resumed_command_needs_no_other_flags(interrupted: Path, whole: Path) -> None:
    pretrain.main(resume_flags("pretrain", interrupted))
    check_equal(interrupted, whole, "pretrain")


def test_a_resumed_command_may_repeat_its_flags(interrupted: Path, whole: Path, data: Path) -> None:
    pretrain.main([*flags("pretrain", data, interrupted), "--resume"])
    check_equal(interrupted, whole, "pretrain")


def test_a_run_resumes_with_its_first_settings(interrupted: Path) -> None:
    message = refusal("pretrain", *resume_flags("pretrain", interrupted), "--learning-rate", "0.1")
    assert message.startswith("--learning-rate is 0.1 and was 0.002 when training began")
    assert "run of system cllm4rec" in refusal(
        "pretrain", *resume_flags("pretrain", interrupted), "--system", "ease"
    )


def test_a_run_resumes_in_its_first_precision(
    data: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    message = refusal("pretrain", *resume_flags("pretrain", interrupted))
    assert message.endswith("began in precision no, not bf16: set ACCELERATE_MIXED_PRECISION=no")
    with monkeypatch.context() as patch, caplog.at_level("INFO"), pytest.raises(SystemExit):
        patch.setattr("cllm4rec.commands.stages.StopRequest.__call__", StopAfter(2).__call__)
        pretrain.main(flags("pretrain", data, interrupted.with_name("half")))
    assert "resume with: ACCELERATE_MIXED_PRECISION=bf16 cllm4rec pretrain --output " in caplog.text


def test_an_interrupted_stage_is_not_restarted(interrupted: Path, data: Path) -> None:
    message = refusal("pretrain", *flags("pretrain", data, interrupted))
    assert "holds an interrupted pretrain: give --resume" in message
    assert RunFolder(interrupted).resume_file("pretrain").describe() is not None


def test_a_run_is_not_resumed_on_a_dataset_prepared_again(interrupted: Path, tmp_path: Path) -> None:
    replace(DATASET, part=np.roll(DATASET.part, 1)).save(tmp_path / "other")
    assert "differs" in refusal(
        "pretrain", *resume_flags("pretrain", interrupted), "--dataset", tmp_path / "other"
    )


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_there_is_nothing_to_resume_in_a_stage_that_has_ended(
    stage: str, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    with caplog.at_level("INFO"):
        call(stage, *resume_flags(stage, whole))
    assert "nothing to resume" in caplog.text
    assert before == {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}


def test_resume_begins_where_nothing_was_begun(data: Path, whole: Path, tmp_path: Path) -> None:
    """So one command line serves a job that may be killed at any moment, even the first."""
    run = tmp_path / "run"
    assert "--dataset" in refusal("pretrain", *resume_flags("pretrain", run))
    RunFolder.create(run, "cllm4rec", DATASET, data, preset=None)  # killed before training began
    pretrain.main([*flags("pretrain", data, run), "--resume"])
    check_equal(run, whole, "pretrain")


def test_a_run_killed_before_its_first_state_restarts_with_its_settings(
    interrupted: Path, whole: Path, data: Path
) -> None:
    RunFolder(interrupted).resume_file("pretrain").remove()
    pretrain.main(resume_flags("pretrain", interrupted))
    check_equal(interrupted, whole, "pretrain")


def test_an_interrupted_stage_without_a_state_may_restart(interrupted: Path, data: Path) -> None:
    RunFolder(interrupted).resume_file("pretrain").remove()
    pretrain.main(["--dataset", str(data), "--output", str(interrupted), "--epochs", "1"])
    assert recorded_training(interrupted, "pretrain")["epochs"] == 1
    assert RunFolder(interrupted).ended("pretrain")


def test_weights_lost_after_an_interruption_are_written_again(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("cllm4rec.commands.stages.StopRequest.__call__", StopAfter(60).__call__)
        pretrain.main(flags("pretrain", data, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "pretrain")
    pretrain.main(resume_flags("pretrain", tmp_path / "run"))
    check_equal(tmp_path / "run", whole, "pretrain")


@pytest.mark.parametrize("flag", [("--system", "ease"), ("--preset", "paper"), ("--epochs", "9")])
def test_resume_of_a_stage_that_has_ended_refuses_what_it_was_not_trained_with(
    flag: tuple[str, str], whole: Path
) -> None:
    assert f"leave {'the flag' if flag[0] == '--epochs' else flag[0]} out" in refusal(
        "pretrain", *resume_flags("pretrain", whole), *flag
    )


def test_a_state_left_by_a_stage_that_has_ended_does_not_count(whole: Path, tmp_path: Path) -> None:
    """A kill before the state's removal affects neither finetuning again nor its result."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    RunFolder(run).resume_file("finetune").path.write_bytes(b"left")
    finetune.main(["--run", str(run), "--epochs", "1"])
    assert recorded_training(run, "finetune")["epochs"] == 1
    assert not RunFolder(run).resume_file("finetune").path.exists()


def test_a_dataset_that_has_moved_is_asked_for(interrupted: Path) -> None:
    description = RunFolder(interrupted).description
    moved = replace(description.dataset, path=str(interrupted / "nowhere"))
    write_text(interrupted / "run.json", signed_text(replace(description, dataset=moved)))
    assert "say where with --dataset" in refusal("pretrain", *resume_flags("pretrain", interrupted))


def test_loading_weights_of_an_interrupted_stage_logs_it(
    interrupted: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(whole)
    assert not caplog.text
    load(interrupted)
    assert f"{interrupted}: pretrain has not ended" in caplog.text


def test_finetuning_takes_the_best_epoch_of_an_interrupted_pretraining(
    interrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finetune.main(["--run", str(interrupted), "--epochs", "1"])
    caplog.clear()
    load(interrupted)
    assert f"{interrupted}: it was finetuned from an earlier epoch of pretrain, which has not" in caplog.text
    assert (interrupted / "finetune" / "model.json").is_file()


def test_weights_have_the_permissions_that_the_umask_gives(whole: Path) -> None:
    modes = {file.stat().st_mode & 0o777 for file in whole.rglob("*") if file.is_file()}
    assert modes == {(whole / "pretrain" / "model.json").stat().st_mode & 0o777}
