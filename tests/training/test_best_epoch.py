"""The best epoch on validation is kept; patience and a time limit end training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.models import SYSTEMS, neural, system_class
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.averaging import exchanged
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import DivergedError, ResumeFile, Stopped
from tests.support.training import QUICK, small_dataset

EPOCHS_ALONE = replace(QUICK, patience_steps=0)


class RecordedFit:
    """A fit with given validation metrics, and its table after each epoch and whenever weights are kept."""

    def __init__(
        self, qualities: list[float] | None, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.records: list[EpochRecord] = []
        self.after_epoch: list[Tensor] = []
        self.kept: list[Tensor] = []
        self.model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))
        given = iter(qualities or [])
        monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(given))
        dataset = small_dataset().train if qualities is None else small_dataset()
        self.model.fit_stage(dataset, "pretrain", config, Hooks(self._on_epoch, self._on_best))

    @property
    def table(self) -> Tensor:
        return self.model.net.collaborative.whole()

    def _on_epoch(self, record: EpochRecord) -> None:
        self.records.append(record)
        self.after_epoch.append(self.table)

    def _on_best(self) -> None:
        self.kept.append(self.table)


def test_the_best_epoch_is_served_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecordedFit([0.1, 0.5, 0.3, 0.2], QUICK, monkeypatch)
    assert [record.best for record in run.records] == [True, True, False, False]
    assert [record.validation for record in run.records] == [0.1, 0.5, 0.3, 0.2]
    assert len(run.kept) == 2
    assert torch.equal(run.table, run.kept[-1])
    assert torch.equal(run.table, run.after_epoch[1])
    assert not torch.equal(run.table, run.after_epoch[-1])


def test_an_equal_later_epoch_does_not_replace_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecordedFit([0.5, 0.5, 0.5, 0.5], QUICK, monkeypatch)
    assert torch.equal(run.table, run.after_epoch[0])


@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 3), (2, 4), (3, 8)])
def test_patience_counts_epochs_without_improvement(
    patience: int, n_epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    qualities = [0.2, 0.3, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1]
    run = RecordedFit(qualities, replace(EPOCHS_ALONE, epochs=20, patience=patience), monkeypatch)
    assert len(run.records) == n_epochs
    best = int(np.argmax(qualities[:n_epochs]))
    assert torch.equal(run.table, run.after_epoch[best])


def test_patience_lasts_some_steps_where_epochs_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    qualities = [0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]
    config = replace(QUICK, epochs=20, patience=1, patience_steps=3, batch_size=10_000)  # a step an epoch
    assert len(RecordedFit(qualities, config, monkeypatch).records) == 2 + 3
    longer = replace(config, patience=4)
    assert len(RecordedFit(qualities, longer, monkeypatch).records) == 2 + 4


def test_by_default_no_system_stops_within_200_steps() -> None:
    """A slow start may have its best epoch by chance, long before it learns."""
    stages = [stage for name in SYSTEMS for stage in system_class(name).config_class.training.values()]
    assert stages
    assert {stage.patience_steps for stage in stages} == {200}


def test_epochs_that_are_not_validated_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validated: the first epoch, every third epoch after it, and the last. Patience counts epochs."""
    run = RecordedFit(
        [0.2, 0.3, 0.1, 0.1], replace(EPOCHS_ALONE, epochs=9, patience=5, validate_every=3), monkeypatch
    )
    validated = [record.epoch for record in run.records if record.validation is not None]
    assert (validated, len(run.records)) == ([0, 3, 6, 8], 9)
    assert [record.epoch for record in run.records if record.best] == [0, 3]
    assert torch.equal(run.table, run.after_epoch[3])
    assert len(run.kept) == 2
    config = replace(EPOCHS_ALONE, epochs=50, patience=5, validate_every=3)
    patient = RecordedFit([0.2, 0.3, 0.1, 0.1], config, monkeypatch)
    assert [record.epoch for record in patient.records] == list(range(10)), "six epochs after the best"


def test_epochs_end_training_where_patience_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecordedFit([0.1, 0.2, 0.3, 0.4, 0.5], replace(QUICK, epochs=5), monkeypatch)
    assert [record.epoch for record in run.records] == [0, 1, 2, 3, 4]


def test_max_minutes_stop_training_and_what_was_learned_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(QUICK, epochs=1000, patience=1000, max_minutes=1e-9)
    run = RecordedFit([0.1] * 1000, config, monkeypatch)
    assert len(run.records) == 1
    assert len(run.kept) == 1
    assert torch.equal(run.table, run.kept[0])


def test_max_minutes_stop_within_the_warm_up_too() -> None:
    records: list[EpochRecord] = []
    config = replace(QUICK, epochs=1000, max_minutes=1e-9)
    model = CLLM4Rec(CLLM4RecConfig(content_warmup=5))
    model.fit_stage(small_dataset(), "pretrain", config, Hooks(records.append))
    assert len(records) == 1
    assert records[0].validation is not None


def test_without_validation_the_last_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RecordedFit(None, QUICK, monkeypatch)
    assert len(run.records) == QUICK.epochs
    assert all(record.validation is None and not record.best for record in run.records)
    assert torch.equal(run.table, run.after_epoch[-1])
    assert torch.equal(run.table, run.kept[-1])


class FinetunedFurther(RecordedFit):
    """Finetuning that follows a pretraining, with given metrics of the weights at the start and of epochs."""

    def __init__(self, qualities: list[float], config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records, self.after_epoch, self.kept = [], [], []
        settings = CLLM4RecConfig(content_ratio=0.0, linear="none", finetune_from="pretrained")
        self.model = CLLM4Rec(settings).fit_stage(small_dataset(), "pretrain", replace(QUICK, epochs=0))
        self.at_start, given = self.table, iter(qualities)
        monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(given))
        self.model.fit_stage(small_dataset(), "finetune", config, Hooks(self._on_epoch, self._on_best))


def test_the_weights_at_the_start_of_a_later_stage_are_kept_if_no_epoch_is_better(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cllm4rec")
    run = FinetunedFurther([0.4, 0.1, 0.4, 0.3, 0.2], QUICK, monkeypatch)
    assert torch.equal(run.table, run.at_start) and not torch.equal(run.table, run.after_epoch[1])
    assert [record.best for record in run.records] == [False] * 4
    assert len(run.kept) == 1 and torch.equal(run.kept[0], run.at_start), "after the first epoch"
    assert "the first weights (0.4000) are kept: no epoch is better" in caplog.messages


def test_a_better_epoch_replaces_the_weights_at_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cllm4rec")
    run = FinetunedFurther([0.3, 0.2, 0.25, 0.31, 0.1], QUICK, monkeypatch)
    assert [record.best for record in run.records] == [False, False, True, False]
    assert torch.equal(run.table, run.after_epoch[2])
    assert len(run.kept) == 2 and torch.equal(run.kept[0], run.at_start)
    assert not any("first weights" in message for message in caplog.messages)


def test_the_patience_counts_from_the_best_epoch_though_the_start_is_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    qualities = [0.9, 0.1, 0.2, 0.3, 0.2, 0.2, 0.2]
    run = FinetunedFurther(qualities, replace(EPOCHS_ALONE, epochs=20, patience=2), monkeypatch)
    assert len(run.records) == 5
    assert torch.equal(run.table, run.at_start)


def test_a_stage_without_epochs_is_not_validated_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FinetunedFurther([], replace(QUICK, epochs=0), monkeypatch)
    assert torch.equal(run.table, run.at_start) and len(run.kept) == 1


def test_resuming_keeps_the_weights_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are given, so that only the saved state can know the weights and the metric at the start."""
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0, linear="none", finetune_from="pretrained"))
    model.fit_stage(small_dataset(), "pretrain", replace(QUICK, epochs=0))
    at_start, given = model.net.collaborative.whole(), iter([0.4, 0.1, 0.2, 0.3, 0.3])
    monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(given))
    resume_file, records = ResumeFile(tmp_path / "state.safetensors"), list[EpochRecord]()
    hooks = Hooks(records.append, should_stop=lambda: len(records) == 2)
    with pytest.raises(Stopped):
        model.fit_stage(small_dataset(), "finetune", QUICK, hooks, resume_file=resume_file)
    assert not torch.equal(model.net.collaborative.whole(), at_start)
    model.fit_stage(small_dataset(), "finetune", QUICK, Hooks(records.append), resume_file=resume_file)
    assert [record.validation for record in records] == [0.1, 0.2, 0.3, 0.3]
    assert not any(record.best for record in records)
    assert torch.equal(model.net.collaborative.whole(), at_start)


def test_resuming_within_the_first_epoch_hands_over_the_first_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0, linear="none", finetune_from="pretrained"))
    model.fit_stage(small_dataset(), "pretrain", replace(QUICK, epochs=0))
    first, given, asked = model.net.collaborative.whole(), iter([0.4, 0.1]), iter([False, False, True])
    monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(given))
    resume_file, kept = ResumeFile(tmp_path / "state.safetensors"), list[Tensor]()
    config, hooks = replace(QUICK, epochs=1), Hooks(should_stop=lambda: next(asked))
    with pytest.raises(Stopped):
        model.fit_stage(small_dataset(), "finetune", config, hooks, resume_file=resume_file)
    hooks = Hooks(on_best=lambda: kept.append(model.net.collaborative.whole()))
    model.fit_stage(small_dataset(), "finetune", config, hooks, resume_file=resume_file)
    assert len(kept) == 1 and torch.equal(kept[0], first)


def test_after_divergence_the_network_has_the_first_weights_if_they_are_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0, linear="none", finetune_from="pretrained"))
    model.fit_stage(small_dataset(), "pretrain", replace(QUICK, epochs=0))
    first, given = model.net.collaborative.whole(), iter([0.4, 0.1])
    monkeypatch.setattr(neural, "shared_validation", lambda *arguments: next(given))

    def spoil(record: EpochRecord) -> None:
        model.net.collaborative.items.weight.data.fill_(float("nan"))

    with pytest.raises(DivergedError, match="the best weights so far are kept"):
        model.fit_stage(small_dataset(), "finetune", QUICK, Hooks(on_epoch=spoil))
    assert model.stage == "finetune" and torch.equal(model.net.collaborative.whole(), first)


def test_a_failure_while_weights_are_written_leaves_none_exchanged() -> None:
    weights, others = ({"a": torch.full((3, 2), x), "b": torch.tensor(x)} for x in (1.0, 2.0))
    with pytest.raises(OSError), exchanged(weights, others):
        assert float(weights["b"]) == 2 and torch.equal(weights["a"], torch.full((3, 2), 2.0))
        assert float(others["b"]) == 1 and torch.equal(others["a"], torch.full((3, 2), 1.0))
        raise OSError("no space left")
    assert float(weights["b"]) == 1 and torch.equal(weights["a"], torch.full((3, 2), 1.0))
    assert float(others["b"]) == 2 and torch.equal(others["a"], torch.full((3, 2), 2.0))
