"""The training loop: accumulation, warm-up epochs, seeds, and data that cannot be learned."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training import batching
from cllm4rec.training.batching import MicroBatches
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import DivergedError
from tests.support.training import QUICK, small_dataset
from tests.support.worlds import taste_dataset


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_batches_of_eight_equal_eight_micro_batches_of_one(stage: str) -> None:
    start = CLLM4Rec(CLLM4RecConfig(content_warmup=0))
    tables = []
    for accumulation in (1, 8):
        torch.manual_seed(0)
        config = TrainConfig(epochs=1, batch_size=8, accumulation=accumulation, warmup_steps=2)
        model = CLLM4Rec(start.config)
        if stage == "finetune":
            model.fit_stage(small_dataset().train, "pretrain", replace(config, accumulation=1))
        before = None if stage == "pretrain" else model.net.collaborative.whole()
        model.fit_stage(small_dataset().train, stage, config)
        assert before is None or not torch.equal(before, model.net.collaborative.whole())
        tables.append((model.net.collaborative.whole(), model.net.content.whole()))
    for table, other in zip(*tables, strict=True):
        assert ((table - other).norm() / table.norm()).item() < 1e-5


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_batch_computed_in_parts_is_the_same_batch(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of similar length: less padding, the same step."""
    tables: list[tuple[Tensor, Tensor]] = []
    n_batches: list[int] = []
    fit_step = TrainingRun.step

    def counted(run: TrainingRun, objective: str, batches: MicroBatches, stop: bool) -> None:
        n_batches[-1] = max(n_batches[-1], len(batches))
        fit_step(run, objective, batches, stop)

    monkeypatch.setattr(TrainingRun, "step", counted)
    config = TrainConfig(epochs=1, batch_size=16, warmup_steps=2)
    for free in (2, 1024):
        n_batches.append(0)
        monkeypatch.setattr(batching, "FREE_PADDING", free)
        model = CLLM4Rec(CLLM4RecConfig(content_warmup=0))
        model.fit_stage(small_dataset().train, "pretrain", config)
        if stage == "finetune":
            model.fit_stage(small_dataset().train, stage, config)
        tables.append((model.net.collaborative.whole(), model.net.content.whole()))
    assert n_batches[0] > 2 and n_batches[1] == 1
    for table, other in zip(*tables, strict=True):
        assert ((table - other).norm() / table.norm()).item() < 1e-5


def test_warm_up_epochs_read_content_alone_and_are_not_counted() -> None:
    records: list[EpochRecord] = []
    model = CLLM4Rec(CLLM4RecConfig(content_warmup=2))
    config = replace(QUICK, epochs=2)
    model.fit_stage(small_dataset(), "pretrain", config, Hooks(records.append))
    assert ["collaborative" in record.losses for record in records] == [False, False, True, True]
    assert [record.validation is not None for record in records] == [False, False, True, True]


def test_training_lowers_the_losses() -> None:
    records: list[EpochRecord] = []
    model = CLLM4Rec(CLLM4RecConfig(content_warmup=0))
    model.fit_stage(small_dataset().train, "pretrain", replace(QUICK, epochs=4), Hooks(records.append))
    for name in ("content", "collaborative"):
        values = [record.losses[name] for record in records]
        assert values[-1] < values[0]


def test_building_gives_the_network_of_a_fit_without_epochs() -> None:
    built = CLLM4Rec().build(small_dataset().train, TrainConfig(seed=3))
    fitted = CLLM4Rec().fit_stage(small_dataset().train, "pretrain", replace(QUICK, epochs=0, seed=3))
    assert built.stage == fitted.stage == "pretrain"
    assert not built.net.training
    for name, array in built._arrays().items():
        assert np.array_equal(array, fitted._arrays()[name]), name
    assert np.isfinite(built.score(np.arange(3), small_dataset().train)).all()


def test_training_runs_of_one_seed_are_equal_and_of_two_differ() -> None:
    tables = []
    for seed in (3, 3, 4):
        model = CLLM4Rec().fit_stage(small_dataset().train, "pretrain", replace(QUICK, epochs=1, seed=seed))
        tables.append(model.net.collaborative.whole())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_an_unknown_stage_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="pretrain, finetune"):
        CLLM4Rec().fit_stage(small_dataset().train, "warm-up", QUICK)


@pytest.mark.parametrize(
    "rows",
    [[("a", "x"), ("a", "y")], [(u, i) for u in "abcdefgh" for i in "xyzw"]],
    ids=["one user", "one taste"],
)
def test_data_without_structure_trains_to_finite_scores(rows: list[tuple[str, str]]) -> None:
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row"))
    model = CLLM4Rec()
    for stage in model.stages:
        model.fit_stage(dataset, stage, TrainConfig(epochs=1))
    assert np.isfinite(model.score(np.array([0]), dataset)).all()


def test_training_that_diverges_ends_in_an_error_that_says_so() -> None:
    events = pl.DataFrame({"user_id": list("aabbcc"), "item_id": list("xyyzzx")})
    config = TrainConfig(epochs=3, learning_rate=1e6)
    with pytest.raises(ValueError, match="diverged"):
        CLLM4Rec(CLLM4RecConfig(prior=1e38)).fit_stage(Dataset.from_frame(events), "pretrain", config)


def test_a_model_that_diverged_has_its_best_weights_or_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, clip, kept = taste_dataset(), TrainingRun._clip_gradient, []

    def broken(self: TrainingRun, objective: str) -> None:
        if self.progress.best is not None:
            kept.append({name: weights.clone() for name, weights in self.best_weights.items()})
            for parameter in self.weights.values():
                parameter.grad = torch.full_like(parameter, torch.nan)
        clip(self, objective)

    monkeypatch.setattr(TrainingRun, "_clip_gradient", broken)
    model = CLLM4Rec(CLLM4RecConfig(content_ratio=0.0))
    with pytest.raises(DivergedError):
        model.fit_stage(dataset, "pretrain", TrainConfig(epochs=3))
    for name, weights in model.net.named_parameters():
        assert torch.equal(weights, kept[-1][name]), name
    assert np.isfinite(model.score(np.array([0]), dataset.train)).all()
    monkeypatch.undo()
    with pytest.raises(DivergedError, match="no epoch was validated, and nothing is kept"):
        model.fit_stage(dataset, "pretrain", TrainConfig(epochs=3, learning_rate=1e9, warmup_steps=0))
    with pytest.raises(ValueError, match="fit"):
        model.score(np.array([0]), dataset.train)
