"""Training resumed from a resume file ends bit for bit as uninterrupted training."""

import copy
import functools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training import loop
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import Conditions, ResumeFile, Stopped
from tests.faults.digests import without_clock
from tests.support.interruption import StopAfter

WORLD = taste_world(0, n_users=50, n_items=40, n_events=10)
DATASET = Dataset.from_frame(WORLD.events, WORLD.items, split="random")
CONFIG = TrainConfig(epochs=4, batch_size=4, warmup_steps=5, schedule="linear", patience=2, patience_steps=0)


def clockless(records: list[EpochRecord]) -> list[dict[str, Any]]:
    return [without_clock(vars(record)) for record in records]


@functools.cache
def pretrained() -> CLLM4Rec:
    return CLLM4Rec().fit_stage(DATASET, "pretrain", replace(CONFIG, epochs=1))


def model_before(stage: str) -> CLLM4Rec:
    """The model before a stage."""
    return CLLM4Rec() if stage == "pretrain" else copy.deepcopy(pretrained())


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def uninterrupted(
    request: pytest.FixtureRequest,
) -> tuple[str, dict[str, np.ndarray], list[EpochRecord], int]:
    """A stage without a stop: its name, arrays, records, and number of steps."""
    records: list[EpochRecord] = []
    counter = StopAfter(10**9)
    model = model_before(request.param).fit_stage(
        DATASET, request.param, CONFIG, Hooks(records.append, should_stop=counter)
    )
    return request.param, model._arrays(), records, 10**9 - counter.left


@pytest.mark.parametrize("share", [0.0, 0.37, 0.5, 1.0])
def test_a_stop_after_any_step_changes_nothing(
    uninterrupted: tuple[str, dict[str, np.ndarray], list[EpochRecord], int], share: float, tmp_path: Path
) -> None:
    stage, expected, records, n_steps = uninterrupted
    assert n_steps > 40
    resume_file, seen = ResumeFile(tmp_path / "state.safetensors"), []
    with pytest.raises(Stopped):
        model_before(stage).fit_stage(
            DATASET,
            stage,
            CONFIG,
            Hooks(seen.append, should_stop=StopAfter(1 + int(share * (n_steps - 1)))),
            resume_file=resume_file,
        )
    model = model_before(stage)
    with torch.no_grad():
        for parameter in model._trained().values() if stage == "finetune" else ():
            parameter.add_(1.0)  # the saved weights replace them
    model.fit_stage(DATASET, stage, CONFIG, Hooks(seen.append), resume_file=resume_file)
    assert clockless(seen) == clockless(records)
    for name, array in model._arrays().items():
        assert np.array_equal(array, expected[name]), name


def test_many_stops_change_nothing(
    uninterrupted: tuple[str, dict[str, np.ndarray], list[EpochRecord], int], tmp_path: Path
) -> None:
    stage, expected, records, _ = uninterrupted
    resume_file, seen, stops = ResumeFile(tmp_path / "state.safetensors"), [], 0
    while True:
        model = model_before(stage)
        try:
            model.fit_stage(
                DATASET, stage, CONFIG, Hooks(seen.append, should_stop=StopAfter(11)), resume_file=resume_file
            )
            break
        except Stopped:
            stops += 1
    assert stops > 3
    assert clockless(seen) == clockless(records)
    assert all(np.array_equal(array, expected[name]) for name, array in model._arrays().items())


def test_the_state_within_an_epoch_is_saved_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training that is killed within an epoch resumes from the middle of it."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    resume_file, saved = ResumeFile(tmp_path / "state.safetensors"), []
    write = ResumeFile.write

    def noting(self: ResumeFile, *arguments: Any) -> None:
        write(self, *arguments)
        description = self.describe()
        assert description is not None
        saved.append((description.progress.epoch, description.progress.step))
        if len(saved) == 5:
            raise MemoryError("killed")

    monkeypatch.setattr(ResumeFile, "write", noting)
    with pytest.raises(MemoryError):
        CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, resume_file=resume_file)
    assert saved == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    monkeypatch.setattr(ResumeFile, "write", write)
    resumed = CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, resume_file=resume_file)
    expected = CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG)._arrays()
    assert all(np.array_equal(array, expected[name]) for name, array in resumed._arrays().items())


def test_a_state_after_the_last_epoch_ends_at_once_with_the_best_weights(tmp_path: Path) -> None:
    """A kill between the last save and the end: nothing is trained again, and the best epoch is served."""
    resume_file, records = ResumeFile(tmp_path / "state.safetensors"), []
    first = CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, Hooks(records.append), resume_file=resume_file)
    assert records and resume_file.path.is_file(), "the caller that created the file removes it"
    again: list[EpochRecord] = []
    second = CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, Hooks(again.append), resume_file=resume_file)
    assert again == []
    assert all(np.array_equal(array, first._arrays()[name]) for name, array in second._arrays().items())


def stopped(folder: Path, conditions: Conditions | None = None) -> ResumeFile:
    """The resume file of a training that was stopped after a step."""
    resume_file = ResumeFile(folder / "state.safetensors", conditions or Conditions())
    with pytest.raises(Stopped):
        CLLM4Rec().fit_stage(
            DATASET, "pretrain", CONFIG, Hooks(should_stop=StopAfter(2)), resume_file=resume_file
        )
    return resume_file


def description_of(resume_file: ResumeFile) -> dict[str, Any]:
    """The description in a resume file, as JSON."""
    description = resume_file.describe()
    assert description is not None
    return asdict(description)


def set_progress(resume_file: ResumeFile, **changes: Any) -> None:
    """Change the progress in a resume file."""
    description = description_of(resume_file)
    description["progress"] |= changes
    resume_file.save(load_file(resume_file.path), description)


def test_time_spent_before_a_stop_counts(tmp_path: Path) -> None:
    resume_file, records = ResumeFile(tmp_path / "state.safetensors"), []
    with pytest.raises(Stopped):
        CLLM4Rec().fit_stage(
            DATASET, "pretrain", CONFIG, Hooks(should_stop=StopAfter(3)), resume_file=resume_file
        )
    set_progress(resume_file, seconds=3600.0)
    asked = StopAfter(10**9)
    config = replace(CONFIG, max_minutes=59.0)
    CLLM4Rec().fit_stage(
        DATASET, "pretrain", config, Hooks(records.append, should_stop=asked), resume_file=resume_file
    )
    assert len(records) == 1, "the minutes were used up before"


def test_a_stop_in_the_step_in_which_the_time_runs_out_loses_nothing(tmp_path: Path) -> None:
    """The shortened epoch is validated and kept, as without the stop."""
    config, resume_file = replace(CONFIG, max_minutes=1e-9), ResumeFile(tmp_path / "state.safetensors")
    expected: list[EpochRecord] = []
    whole = CLLM4Rec().fit_stage(DATASET, "pretrain", config, Hooks(expected.append))
    with pytest.raises(Stopped):
        CLLM4Rec().fit_stage(
            DATASET, "pretrain", config, Hooks(should_stop=StopAfter(2)), resume_file=resume_file
        )
    description = resume_file.describe()
    assert description is not None and description.progress.late and description.progress.step == 1
    records: list[EpochRecord] = []
    resumed = CLLM4Rec().fit_stage(
        DATASET, "pretrain", config, Hooks(records.append), resume_file=resume_file
    )
    assert clockless(records) == clockless(expected) and len(records) == 1
    assert all(np.array_equal(array, whole._arrays()[name]) for name, array in resumed._arrays().items())


def test_a_stop_requested_before_validation_takes_effect_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation may take long: the epoch's steps are saved, and training resumes with validation."""
    steps: list[str] = []
    step = loop.TrainingRun.step
    monkeypatch.setattr(
        loop.TrainingRun, "step", lambda self, *arguments: (steps.append("step"), step(self, *arguments))[1]
    )
    resume_file, records = ResumeFile(tmp_path / "state.safetensors"), []
    config = replace(CONFIG, epochs=1)
    CLLM4Rec(CLLM4RecConfig(content_ratio=0)).fit_stage(DATASET, "pretrain", config)
    n_steps = len(steps)
    with pytest.raises(Stopped):
        CLLM4Rec(CLLM4RecConfig(content_ratio=0)).fit_stage(
            DATASET,
            "pretrain",
            config,
            Hooks(records.append, should_stop=StopAfter(n_steps + 2)),
            resume_file=resume_file,
        )
    description = resume_file.describe()
    assert description is not None and description.progress.step == n_steps and records == []
    steps.clear()
    CLLM4Rec(CLLM4RecConfig(content_ratio=0)).fit_stage(
        DATASET, "pretrain", config, Hooks(records.append), resume_file=resume_file
    )
    assert steps == [] and len(records) == 1 and records[0].validation is not None


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    resume_file = stopped(tmp_path)
    resume_file.save(load_file(resume_file.path), description_of(resume_file) | {"format_version": 99})
    with pytest.raises(ValueError, match="format_version 99 is unknown"):
        CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, resume_file=resume_file)


def test_a_state_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    resume_file = stopped(tmp_path)
    kept = {name: t for name, t in load_file(resume_file.path).items() if name != "now.content.users.weight"}
    resume_file.save(kept, description_of(resume_file))
    with pytest.raises(ValueError, match="does not fit the network"):
        CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, resume_file=resume_file)


def test_training_that_diverges_leaves_no_state_that_would_lead_there_again(tmp_path: Path) -> None:
    resume_file = ResumeFile(tmp_path / "state.safetensors")
    config = replace(CONFIG, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(ValueError, match="training diverged"):
        CLLM4Rec().fit_stage(DATASET, "pretrain", config, resume_file=resume_file)
    assert not resume_file.path.exists()


def test_a_setting_that_the_state_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="'schedule' of training is not as it was"):
        Conditions(training={"seed": 0, "schedule": "constant"}).check(Conditions(training={"seed": 0}))


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    resume_file = stopped(tmp_path, Conditions(training={"seed": 0}))
    with pytest.raises(ValueError, match="'seed' of training is not as it was"):
        CLLM4Rec().fit_stage(
            DATASET,
            "pretrain",
            CONFIG,
            resume_file=replace(resume_file, conditions=Conditions(training={"seed": 1})),
        )
    reversed_titles = DATASET.items.with_columns(title=pl.col("title").str.reverse())
    with pytest.raises(ValueError, match="tokenizer is not as it was"):
        CLLM4Rec().fit_stage(
            replace(DATASET, items=reversed_titles), "pretrain", CONFIG, resume_file=resume_file
        )


@pytest.mark.parametrize("keep", [0, 7, 200, 5000])
def test_a_damaged_state_is_refused_in_one_line(keep: int, tmp_path: Path) -> None:
    resume_file = stopped(tmp_path)
    resume_file.path.write_bytes(resume_file.path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged") as ended:
        CLLM4Rec().fit_stage(DATASET, "pretrain", CONFIG, resume_file=resume_file)
    assert "\n" not in str(ended.value)
