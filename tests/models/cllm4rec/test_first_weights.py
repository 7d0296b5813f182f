"""The weights from which finetuning starts: the pretrained ones, or the initial ones if they are better."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import neural
from cllm4rec.models.cllm4rec import recommender
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.worlds import taste_dataset

PRETRAIN, FINETUNE = TrainConfig(epochs=1, seed=3), TrainConfig(epochs=0, seed=5)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return taste_dataset(1, n_users=40, n_items=30, n_events=10)


def finetuned(dataset: Dataset, **settings: object) -> tuple[dict[str, np.ndarray], ...]:
    """Weights after pretraining, and at the start of finetuning."""
    config = CLLM4RecConfig(backbone="1x64", linear="none", **settings)  # type: ignore[arg-type]
    model = CLLM4Rec(config).fit_stage(dataset, "pretrain", PRETRAIN)
    pretrained = {name: array.copy() for name, array in model._arrays().items()}
    return pretrained, model.fit_stage(dataset, "finetune", FINETUNE)._arrays()


def measured(values: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The metrics of the pretrained and of the initial weights, which are given."""
    left = iter(values)
    monkeypatch.setattr(recommender, "shared_validation", lambda *_: next(left))
    return left


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    assert left.keys() == right.keys()
    return all(np.array_equal(array, right[name]) for name, array in left.items())


def test_initial_weights_are_taken_if_they_are_clearly_better(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cllm4rec")
    measured([0.2, 0.2101], monkeypatch)
    pretrained, started = finetuned(dataset)
    initial = CLLM4Rec(CLLM4RecConfig(backbone="1x64")).build(dataset, FINETUNE)._arrays()
    assert same(started, initial) and not same(started, pretrained)
    line = "finetuning starts from the initial weights: validation ndcg@100 0.2101, pretrained 0.2000"
    assert line in caplog.messages


def test_pretrained_weights_are_kept_otherwise(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cllm4rec")
    left = measured([0.2, 0.2099, 0.7], monkeypatch)
    assert same(*finetuned(dataset))
    line = "finetuning starts from the pretrained weights: validation ndcg@100 0.2000, initial 0.2099"
    assert line in caplog.messages
    assert next(left) == 0.7, "each was measured once"


@pytest.mark.parametrize("case", ["pretrained", "no validation events"])
def test_nothing_is_measured_where_nothing_can_be_chosen(
    case: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured([], monkeypatch)
    if case == "pretrained":
        assert same(*finetuned(dataset, finetune_from="pretrained"))
    else:
        part = np.where(dataset.part == 1, 0, dataset.part).astype(np.uint8)
        assert same(*finetuned(replace(dataset, part=part, stored_hashes=None)))


def test_weights_that_were_finetuned_are_finetuned_further(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured([0.2, 0.1], monkeypatch)
    model = CLLM4Rec(CLLM4RecConfig(backbone="1x64", linear="none"))
    model.fit_stage(dataset, "pretrain", PRETRAIN).fit_stage(dataset, "finetune", replace(FINETUNE, epochs=1))
    before = {name: array.copy() for name, array in model._arrays().items()}
    assert same(before, model.fit_stage(dataset, "finetune", FINETUNE)._arrays())


def test_a_frozen_backbone_is_shared_and_a_tuned_one_keeps_its_pretraining(
    llama: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"backbone": str(llama), "linear": "none", "item_text": "words", "content_ratio": 0.0}
    measured([0.1, 0.2], monkeypatch)
    frozen = CLLM4Rec(CLLM4RecConfig(tune="frozen", **settings))  # type: ignore[arg-type]
    frozen.fit_stage(dataset, "pretrain", PRETRAIN)
    backbone = frozen.net.backbone
    assert frozen.fit_stage(dataset, "finetune", FINETUNE).net.backbone is backbone
    measured([], monkeypatch)
    tuned = CLLM4Rec(CLLM4RecConfig(tune="full", **settings))  # type: ignore[arg-type]
    tuned.fit_stage(dataset, "pretrain", PRETRAIN).fit_stage(dataset, "finetune", FINETUNE)


@pytest.mark.parametrize(("metrics", "first"), [([0.2, 0.25], 0.25), ([0.2, 0.1], 0.2)])
def test_training_knows_the_metric_of_the_weights_that_were_taken(
    metrics: list[float], first: float, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs that are just below that of the weights taken, and above that of the others, are not kept."""
    measured(metrics, monkeypatch)
    monkeypatch.setattr(neural, "shared_validation", lambda *_: first - 0.01)
    model = CLLM4Rec(CLLM4RecConfig(backbone="1x64", linear="none")).fit_stage(
        dataset.train, "pretrain", PRETRAIN
    )
    pretrained = {name: array.copy() for name, array in model._arrays().items()}
    ended = model.fit_stage(dataset, "finetune", replace(FINETUNE, epochs=1))._arrays()
    initial = CLLM4Rec(CLLM4RecConfig(backbone="1x64")).build(dataset, FINETUNE)._arrays()
    assert same(ended, initial if first == metrics[1] else pretrained)
