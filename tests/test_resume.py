"""Training that was stopped, or killed at any moment, goes on and ends bit for bit where it would have ended."""

import copy
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from cllm4rec import finetune, pretrain
from cllm4rec.data.files import write_text
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models import load
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.training import loop
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.meter import EpochRecord
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.state import StateFile, Stopped

DATASET = build_dataset(*(lambda world: (world.events, world.items))(taste_world(0, n_users=50, n_items=40, n_events=10)))
CONFIG = TrainConfig(epochs=4, batch_size=4, warmup_steps=5, patience=2)
COMMANDS = {"pretrain": pretrain, "finetune": finetune}


def comparable(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the metrics without what a clock says."""
    return {name: value for name, value in line.items() if name not in ("seconds", "tokens_per_second")}


def without_clock(records: list[EpochRecord]) -> list[dict[str, Any]]:
    return [comparable(vars(record)) for record in records]


class StopAfter:
    """Asks to stop when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@functools.cache
def pretrained() -> CLLM4Rec:
    return CLLM4Rec().fit(DATASET.train, DATASET.validation, replace(CONFIG, epochs=1), "pretrain")


def begin(stage: str) -> CLLM4Rec:
    """A model as it is before a stage."""
    return CLLM4Rec() if stage == "pretrain" else copy.deepcopy(pretrained())


# -------------------------------------------------------------------------------------------- any step, within one process


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def uninterrupted(request: pytest.FixtureRequest) -> tuple[str, dict[str, np.ndarray], list[EpochRecord], int]:
    """A stage in one go: its name, what it learned, its records, and how many steps it took."""
    records: list[EpochRecord] = []
    counter = StopAfter(10**9)
    model = begin(request.param).fit(
        DATASET.train, DATASET.validation, CONFIG, request.param, records.append, should_stop=counter
    )
    return request.param, model._arrays(), records, 10**9 - counter.left


@pytest.mark.parametrize("share", [0.0, 0.37, 0.5, 1.0])
def test_a_stop_after_any_step_changes_nothing(
    uninterrupted: tuple[str, dict[str, np.ndarray], list[EpochRecord], int], share: float, tmp_path: Path
) -> None:
    stage, expected, records, n_steps = uninterrupted
    assert n_steps > 40
    state, seen = StateFile(tmp_path / "state.safetensors"), []
    with pytest.raises(Stopped):
        begin(stage).fit(
            DATASET.train,
            DATASET.validation,
            CONFIG,
            stage,
            seen.append,
            state=state,
            should_stop=StopAfter(1 + int(share * (n_steps - 1))),
        )
    model = begin(stage)
    with torch.no_grad():
        for parameter in model._trained().values() if stage == "finetune" else ():
            parameter.add_(1.0)  # whatever is there is replaced by the state
    model.fit(DATASET.train, DATASET.validation, CONFIG, stage, seen.append, state=state)
    assert without_clock(seen) == without_clock(records)
    for name, array in model._arrays().items():
        assert np.array_equal(array, expected[name]), name


def test_many_stops_change_nothing(
    uninterrupted: tuple[str, dict[str, np.ndarray], list[EpochRecord], int], tmp_path: Path
) -> None:
    stage, expected, records, _ = uninterrupted
    state, seen, stops = StateFile(tmp_path / "state.safetensors"), [], 0
    while True:
        model = begin(stage)
        try:
            model.fit(DATASET.train, DATASET.validation, CONFIG, stage, seen.append, state=state, should_stop=StopAfter(11))
            break
        except Stopped:
            stops += 1
    assert stops > 3
    assert without_clock(seen) == without_clock(records)
    assert all(np.array_equal(array, expected[name]) for name, array in model._arrays().items())


def test_the_state_within_an_epoch_is_saved_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed within an epoch, training goes on from the middle of it."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    state, saved = StateFile(tmp_path / "state.safetensors"), []
    write = StateFile.write

    def noting(self: StateFile, *arguments: Any) -> None:
        write(self, *arguments)
        described = self.described()
        assert described is not None
        saved.append((described["progress"]["epoch"], described["progress"]["step"]))
        if len(saved) == 5:
            raise MemoryError("killed")

    monkeypatch.setattr(StateFile, "write", noting)
    with pytest.raises(MemoryError):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state)
    assert saved == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    monkeypatch.setattr(StateFile, "write", write)
    resumed = CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state)
    expected = CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG)._arrays()
    assert all(np.array_equal(array, expected[name]) for name, array in resumed._arrays().items())


def test_a_state_after_the_last_epoch_ends_at_once_with_the_best_weights(tmp_path: Path) -> None:
    """Killed between the last saving and the end: nothing is trained again, and the best epoch is served, not the last."""
    state, records = StateFile(tmp_path / "state.safetensors"), []
    first = CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, on_epoch=records.append, state=state)
    assert records and state.path.is_file(), "who began the file removes it"
    again: list[EpochRecord] = []
    second = CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, on_epoch=again.append, state=state)
    assert again == []
    assert all(np.array_equal(array, first._arrays()[name]) for name, array in second._arrays().items())


def edited(state: StateFile, **changes: Any) -> None:
    """Change what a state says of its progress."""
    described = state.described()
    assert described is not None
    described["progress"] |= changes
    state.save(load_file(state.path), described)


def test_time_spent_before_a_stop_counts(tmp_path: Path) -> None:
    state, records = StateFile(tmp_path / "state.safetensors"), []
    with pytest.raises(Stopped):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state, should_stop=StopAfter(3))
    edited(state, seconds=3600.0)
    asked = StopAfter(10**9)
    config = replace(CONFIG, max_minutes=59.0)
    CLLM4Rec().fit(DATASET.train, DATASET.validation, config, on_epoch=records.append, state=state, should_stop=asked)
    assert len(records) == 1, "the minutes were used up before"


def test_a_stop_in_the_step_in_which_the_time_runs_out_loses_nothing(tmp_path: Path) -> None:
    """The epoch that was cut is validated and kept, as it is without the stop."""
    config, state = replace(CONFIG, max_minutes=1e-9), StateFile(tmp_path / "state.safetensors")
    expected: list[EpochRecord] = []
    whole = CLLM4Rec().fit(DATASET.train, DATASET.validation, config, on_epoch=expected.append)
    with pytest.raises(Stopped):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, config, state=state, should_stop=StopAfter(2))
    described = state.described()
    assert described is not None and described["progress"]["late"] and described["progress"]["step"] == 1
    records: list[EpochRecord] = []
    resumed = CLLM4Rec().fit(DATASET.train, DATASET.validation, config, on_epoch=records.append, state=state)
    assert without_clock(records) == without_clock(expected) and len(records) == 1
    assert all(np.array_equal(array, whole._arrays()[name]) for name, array in resumed._arrays().items())


def test_a_stop_asked_for_before_validation_is_heard_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation may take long: the epoch's steps are saved, and validation is what training goes on with."""
    steps: list[str] = []
    step = loop.Course.step
    monkeypatch.setattr(loop.Course, "step", lambda self, *arguments: (steps.append("step"), step(self, *arguments))[1])
    state, records = StateFile(tmp_path / "state.safetensors"), []
    config = replace(CONFIG, epochs=1)
    CLLM4Rec(CLLM4RecConfig(content_ratio=0)).fit(DATASET.train, DATASET.validation, config)
    n_steps = len(steps)
    with pytest.raises(Stopped):
        CLLM4Rec(CLLM4RecConfig(content_ratio=0)).fit(
            DATASET.train, DATASET.validation, config, on_epoch=records.append, state=state, should_stop=StopAfter(n_steps + 2)
        )
    described = state.described()
    assert described is not None and described["progress"]["step"] == n_steps and records == []
    steps.clear()
    CLLM4Rec(CLLM4RecConfig(content_ratio=0)).fit(
        DATASET.train, DATASET.validation, config, on_epoch=records.append, state=state
    )
    assert steps == [] and len(records) == 1 and records[0].validation is not None


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.safetensors")
    with pytest.raises(Stopped):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state, should_stop=StopAfter(2))
    described = state.described() or {}
    state.save(load_file(state.path), described | {"format_version": 99})
    with pytest.raises(ValueError, match="format_version 99 is unknown"):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state)


def test_a_state_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.safetensors")
    with pytest.raises(Stopped):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state, should_stop=StopAfter(2))
    kept = {name: t for name, t in load_file(state.path).items() if name != "now.content.users.weight"}
    state.save(kept, state.described() or {})
    with pytest.raises(ValueError, match="does not fit the network"):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state)


def test_training_that_diverges_leaves_no_state_that_would_lead_there_again(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.safetensors")
    config = replace(CONFIG, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(ValueError, match="training diverged"):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, config, state=state)
    assert not state.path.exists()


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.safetensors", {"training": {"seed": 0}})
    with pytest.raises(Stopped):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state, should_stop=StopAfter(2))
    with pytest.raises(ValueError, match="training is not as it was"):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=replace(state, about={"training": {"seed": 1}}))
    other = DATASET.items.with_columns(title=pl.col("title").str.reverse())
    with pytest.raises(ValueError, match="tokenizer is not as it was"):
        CLLM4Rec().fit(replace(DATASET, items=other).train, DATASET.validation, CONFIG, state=state)


@pytest.mark.parametrize("keep", [0, 7, 200, 5000])
def test_a_damaged_state_is_refused_in_one_line(keep: int, tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.safetensors")
    with pytest.raises(Stopped):
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state, should_stop=StopAfter(2))
    state.path.write_bytes(state.path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged") as ended:
        CLLM4Rec().fit(DATASET.train, DATASET.validation, CONFIG, state=state)
    assert "\n" not in str(ended.value)


# ------------------------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "data"
    DATASET.save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """A run of both stages that nothing disturbed."""
    run = data.parent / "whole"
    for stage in ("pretrain", "finetune"):
        COMMANDS[stage].main(flags(stage, data, run))
    return run


def flags(stage: str, data: Path, run: Path) -> list[str]:
    where = ["--dataset", str(data), "--output", str(run)] if stage == "pretrain" else ["--run", str(run)]
    return [*where, "--epochs", "6", "--patience", "6", "--batch-size", "8", "--learning-rate", "0.002"]


def resume_flags(stage: str, run: Path) -> list[str]:
    return ["--output" if stage == "pretrain" else "--run", str(run), "--resume"]


def prepared_run(stage: str, whole: Path, run: Path) -> Path:
    """A run folder as it is before a stage."""
    if stage == "finetune":
        shutil.copytree(whole, run)
        shutil.rmtree(run / "finetune")
        about = RunFolder(run).about
        del about["stages"]["finetune"]
        write_text(run / "run.json", signed_text(about))
        RunFolder(run).forget("finetune", 0)
    return run


def check_equal(run: Path, whole: Path, stage: str) -> None:
    """Weights, metrics and lists of a stage are those of the run that nothing disturbed, and nothing is left behind."""
    assert (run / stage / "model.safetensors").read_bytes() == (whole / stage / "model.safetensors").read_bytes()
    lines = [[comparable(line) for line in RunFolder(one).metrics() if line["stage"] == stage] for one in (run, whole)]
    assert lines[0] == lines[1]
    assert RunFolder(run).about["stages"][stage] == RunFolder(whole).about["stages"][stage]
    if stage == "finetune":
        lists = [load(one).recommend(np.arange(DATASET.n_users), DATASET) for one in (run, whole)]
        assert np.array_equal(lists[0].items, lists[1].items) and np.array_equal(lists[0].scores, lists[1].scores)
    assert not [file.name for file in run.iterdir() if "state" in file.name or file.name.startswith(".")]


def start(stage: str, arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"cllm4rec.{stage}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def n_epochs(run: Path, stage: str) -> int:
    """Lines of metrics that there are for the stage."""
    return sum(line["stage"] == stage for line in RunFolder(run).metrics())


def wait_for_epoch(process: subprocess.Popen[str], run: Path, stage: str, n: int) -> None:
    """Until the process has written n lines of metrics for the stage."""
    while process.poll() is None:
        if n_epochs(run, stage) >= n:
            return
        time.sleep(0.01)
    pytest.fail(f"ended before it was stopped: {process.communicate()}")


def wait_for_state(process: subprocess.Popen[str], run: Path, stage: str) -> None:
    while process.poll() is None and not RunFolder(run).state(stage).path.is_file():
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("stage", "number"), [("pretrain", signal.SIGTERM), ("finetune", signal.SIGINT)], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.slow
def test_a_signal_ends_a_command_after_its_step_and_says_how_to_go_on(
    stage: str, number: signal.Signals, data: Path, whole: Path, tmp_path: Path
) -> None:
    run = prepared_run(stage, whole, tmp_path / "a run")
    process = start(stage, flags(stage, data, run))
    wait_for_epoch(process, run, stage, 2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert "all of it is saved; go on with: " in last
    typed = last.split("go on with: ")[1]
    assert typed == f"python -m cllm4rec.{stage} {'--output' if stage == 'pretrain' else '--run'} '{run}' --resume"
    described = RunFolder(run).state(stage).described()
    assert described is not None and described["progress"]["epoch"] >= 2
    COMMANDS[stage].main(resume_flags(stage, run))
    check_equal(run, whole, stage)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.slow
def test_three_kills_at_random_moments_change_nothing(stage: str, data: Path, whole: Path, tmp_path: Path) -> None:
    run = prepared_run(stage, whole, tmp_path / "run")
    generator = np.random.default_rng([3, len(stage)])
    arguments = flags(stage, data, run)
    for kill in range(3):
        process = start(stage, arguments)
        wait_for_state(process, run, stage)
        wait_for_epoch(process, run, stage, kill)
        moment = time.monotonic() + generator.uniform(0, 1.2)
        while time.monotonic() < moment and n_epochs(run, stage) < 4:  # of six: a fast machine does not end before
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        described = RunFolder(run).state(stage).described()
        assert described is not None, "there is a whole state at any moment"
        RunFolder(run).about, RunFolder(run).metrics()
        arguments = resume_flags(stage, run)
    COMMANDS[stage].main(arguments)
    check_equal(run, whole, stage)


@pytest.fixture
def interrupted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run whose pretraining was stopped in its second epoch."""
    with monkeypatch.context() as patch:
        patch.setattr("cllm4rec.stages.StopRequest.__call__", StopAfter(20).__call__)
        with pytest.raises(SystemExit):
            pretrain.main(flags("pretrain", data, tmp_path / "run"))
    yield tmp_path / "run"


def refusal(stage: str, *arguments: object) -> str:
    with pytest.raises(ValueError) as ended:
        COMMANDS[stage].main([str(one) for one in arguments])
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_a_resumed_command_needs_no_other_flags(interrupted: Path, whole: Path) -> None:
    pretrain.main(resume_flags("pretrain", interrupted))
    check_equal(interrupted, whole, "pretrain")


def test_a_resumed_command_may_repeat_its_flags(interrupted: Path, whole: Path, data: Path) -> None:
    pretrain.main([*flags("pretrain", data, interrupted), "--resume"])
    check_equal(interrupted, whole, "pretrain")


def test_a_run_goes_on_as_it_began(interrupted: Path) -> None:
    message = refusal("pretrain", *resume_flags("pretrain", interrupted), "--learning-rate", "0.1")
    assert message.startswith("--learning-rate is 0.1 and was 0.002 when training began")
    assert "run of system cllm4rec" in refusal("pretrain", *resume_flags("pretrain", interrupted), "--system", "ease")


def test_a_run_goes_on_in_the_precision_it_began_in(
    data: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    message = refusal("pretrain", *resume_flags("pretrain", interrupted))
    assert message.endswith("began in precision no, not bf16: set ACCELERATE_MIXED_PRECISION=no")
    with monkeypatch.context() as patch, caplog.at_level("INFO"), pytest.raises(SystemExit):
        patch.setattr("cllm4rec.stages.StopRequest.__call__", StopAfter(2).__call__)
        pretrain.main(flags("pretrain", data, interrupted.with_name("half")))
    assert "go on with: ACCELERATE_MIXED_PRECISION=bf16 python -m cllm4rec.pretrain" in caplog.text


def test_an_interrupted_stage_is_not_started_anew(interrupted: Path, data: Path) -> None:
    message = refusal("pretrain", *flags("pretrain", data, interrupted))
    assert "holds an interrupted pretrain: go on with --resume" in message
    assert RunFolder(interrupted).state("pretrain").described() is not None


def test_a_dataset_prepared_anew_is_not_resumed_on(interrupted: Path, tmp_path: Path) -> None:
    replace(DATASET, part=np.roll(DATASET.part, 1)).save(tmp_path / "other")
    assert "differs" in refusal("pretrain", *resume_flags("pretrain", interrupted), "--dataset", tmp_path / "other")


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_there_is_nothing_to_resume_in_a_stage_that_has_ended(
    stage: str, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    with caplog.at_level("INFO"):
        COMMANDS[stage].main(resume_flags(stage, whole))
    assert "nothing to resume" in caplog.text
    assert before == {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}


def test_resume_begins_where_nothing_was_begun(data: Path, whole: Path, tmp_path: Path) -> None:
    """So that one command line serves a job that may be cut off at any moment, the first ones included."""
    run = tmp_path / "run"
    assert "--dataset" in refusal("pretrain", *resume_flags("pretrain", run))
    RunFolder.create(run, "cllm4rec", DATASET, data, preset=None)  # killed before training began
    pretrain.main([*flags("pretrain", data, run), "--resume"])
    check_equal(run, whole, "pretrain")


def test_a_run_cut_off_before_its_first_state_begins_again_with_its_own_settings(
    interrupted: Path, whole: Path, data: Path
) -> None:
    RunFolder(interrupted).state("pretrain").remove()
    pretrain.main(resume_flags("pretrain", interrupted))
    check_equal(interrupted, whole, "pretrain")


def test_an_interrupted_stage_whose_state_was_removed_may_begin_anew(interrupted: Path, data: Path) -> None:
    RunFolder(interrupted).state("pretrain").remove()
    pretrain.main(["--dataset", str(data), "--output", str(interrupted), "--epochs", "1"])
    assert RunFolder(interrupted).about["stages"]["pretrain"]["training"]["epochs"] == 1
    assert RunFolder(interrupted).ended("pretrain")


def test_weights_that_were_lost_meanwhile_are_written_again(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("cllm4rec.stages.StopRequest.__call__", StopAfter(60).__call__)
        pretrain.main(flags("pretrain", data, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "pretrain")
    pretrain.main(resume_flags("pretrain", tmp_path / "run"))
    check_equal(tmp_path / "run", whole, "pretrain")


@pytest.mark.parametrize("flag", [("--system", "ease"), ("--preset", "paper"), ("--epochs", "9")])
def test_resume_of_a_stage_that_has_ended_refuses_what_it_was_not_trained_with(flag: tuple[str, str], whole: Path) -> None:
    assert f"leave {'the flag' if flag[0] == '--epochs' else flag[0]} out" in refusal(
        "pretrain", *resume_flags("pretrain", whole), *flag
    )


def test_a_state_left_by_a_stage_that_has_ended_does_not_count(whole: Path, tmp_path: Path) -> None:
    """Killed between noting the end and removing the state: neither finetuning again nor its result is touched by it."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    RunFolder(run).state("finetune").path.write_bytes(b"left")
    finetune.main(["--run", str(run), "--epochs", "1"])
    assert RunFolder(run).about["stages"]["finetune"]["training"]["epochs"] == 1
    assert not RunFolder(run).state("finetune").path.exists()


def test_a_dataset_that_has_moved_is_asked_for(interrupted: Path) -> None:
    about = RunFolder(interrupted).about
    about["dataset"]["path"] = str(interrupted / "nowhere")
    write_text(interrupted / "run.json", signed_text(about))
    assert "say where with --dataset" in refusal("pretrain", *resume_flags("pretrain", interrupted))


def test_weights_of_an_interrupted_stage_are_named_as_such(
    interrupted: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(whole)
    assert not caplog.text
    load(interrupted)
    assert f"{interrupted}: pretrain has not ended" in caplog.text


def test_finetuning_takes_the_best_epoch_of_an_interrupted_pretraining(interrupted: Path) -> None:
    finetune.main(["--run", str(interrupted), "--epochs", "1"])
    assert (interrupted / "finetune" / "model.json").is_file()


def test_weights_may_be_read_by_whom_the_umask_allows(whole: Path) -> None:
    modes = {file.stat().st_mode & 0o777 for file in whole.rglob("*") if file.is_file()}
    assert modes == {(whole / "pretrain" / "model.json").stat().st_mode & 0o777}
