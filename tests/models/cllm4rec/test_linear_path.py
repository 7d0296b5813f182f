"""A linear model beside the finetuned network: its numbers by dense matrices, and its weight."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import inner_product, neural
from cllm4rec.models.baselines import item_inverse
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.cllm4rec import linear_path, recommender
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.linear_path import (
    DECAYS,
    FIRST_DECAY,
    MOST_ITEMS,
    WEIGHTS,
    largest_entries,
    path_model,
)
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.resume import Stopped
from tests.support.commands import call
from tests.support.logs import messages
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

STAGES = {"pretrain": TrainConfig(epochs=0), "finetune": TrainConfig(epochs=1)}


def model_of_path(config: CLLM4RecConfig, dataset: Dataset) -> EASE:
    """The model of a linear path that there has to be."""
    model = path_model(config, dataset)
    assert model is not None
    return model


def test_each_row_keeps_its_largest_entries() -> None:
    weights = np.array([[0, 3, -4, 1], [0.5, 0, 0, 0], [2, -2, 0, 1], [1, 2, 3, 0]], dtype=np.float32)
    kept = largest_entries(weights, 2).toarray()
    assert kept.tolist() == [[0, 3, -4, 0], [0.5, 0, 0, 0], [2, -2, 0, 0], [0, 2, 3, 0]]
    np.testing.assert_array_equal(largest_entries(weights, 9).toarray(), weights)


def test_the_entries_are_chosen_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(0).normal(size=(13, 13)).astype(np.float32)
    whole = largest_entries(weights, 5).toarray()
    assert ((whole != 0).sum(1) == 5).all()
    monkeypatch.setattr(item_inverse, "NUMBERS_AT_ONCE", 4 * 13)
    np.testing.assert_array_equal(largest_entries(weights, 5).toarray(), whole)


def network_alone(model: CLLM4Rec) -> np.ndarray:
    """Scores of all users without the linear path."""
    path, model.net.linear = model.net.linear, None
    scores = model.score(np.arange(len(model.user_ids)), source(model).train)
    model.net.linear = path
    return scores


def source(model: CLLM4Rec) -> Dataset:
    assert isinstance(model.source, Dataset)
    return model.source


def validation_ndcg(scores: np.ndarray, dataset: Dataset) -> float:
    """Mean NDCG over the users with validation events: one user after the other, no item is cut off."""
    trained, held_out = (
        part.interactions.matrix.toarray() > 0 for part in (dataset.train, dataset.validation)
    )
    values = []
    for user in np.flatnonzero(held_out.any(1)):
        order = np.argsort(-np.where(trained[user], -np.inf, scores[user]), kind="stable")
        places = np.flatnonzero(held_out[user][order])
        best = np.arange(len(places))
        values.append((1 / np.log2(places + 2)).sum() / (1 / np.log2(best + 2)).sum())
    return float(np.mean(values))


@pytest.mark.parametrize("few", [0, 10**6])
def test_scores_of_few_and_of_many_events_are_the_sparse_product(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner_product, "FEW_ENTRIES", few)
    generator = np.random.default_rng(0)
    histories, weights = (
        sp.csr_matrix(generator.random(shape) * (generator.random(shape) < 0.4), dtype=np.float32)
        for shape in ((6, 9), (9, 9))
    )
    users = np.array([4, 0, 4])
    expected = 3.0 * (histories.toarray()[users] @ weights.toarray())
    scores = inner_product.LinearScores(histories, users, weights, 3.0)
    for items in (slice(0, 9), slice(0, 20), slice(2, 5)):
        np.testing.assert_allclose(scores.block(items), expected[:, items], rtol=1e-5)


@pytest.mark.parametrize("linear", ["ease", "ease-text"])
def test_scores_are_those_of_the_network_and_the_linear_model(
    linear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear=linear)).fit(dataset, STAGES)
    ease = model_of_path(CLLM4RecConfig(linear=linear), dataset).fit(dataset)
    users, path = np.arange(dataset.n_users), model.net.linear
    assert path is not None
    together = model.score(users, dataset.train)
    of_ease = float(path.weight) * np.asarray(dataset.train.interactions.matrix @ ease.weights)
    np.testing.assert_allclose(together, network_alone(model) + of_ease, rtol=1e-4, atol=1e-4)
    whole = model.rank(users, dataset.train, k=7)
    monkeypatch.setattr(inner_product, "SCORES_AT_ONCE", 3 * len(users))
    blocked = model.rank(users, dataset.train, k=7)
    np.testing.assert_array_equal(whole.items, blocked.items)
    model.save(tmp_path)
    np.testing.assert_allclose(CLLM4Rec.load(tmp_path).score(users, dataset.train), together, rtol=1e-5)


def test_the_weight_is_the_best_on_validation_events() -> None:
    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(dataset, STAGES)
    ease = model_of_path(CLLM4RecConfig(linear="ease"), dataset).fit(dataset)
    alone, of_ease = network_alone(model), dataset.train.interactions.matrix @ ease.weights
    quality = [validation_ndcg(alone + weight * of_ease, dataset) for weight in WEIGHTS]
    assert model.net.linear is not None
    assert float(model.net.linear.weight) == WEIGHTS[int(np.argmax(quality))]
    assert len(set(quality)) > 3, "the weights differ in quality"


def test_histories_in_time_order_decay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = taste_dataset(split="leave-last-out")
    with caplog.at_level("INFO", "cllm4rec"):
        model = CLLM4Rec(CLLM4RecConfig(order="time")).fit(dataset, STAGES)
    path = model.net.linear
    assert path is not None, "auto has one"
    weight, decay = float(path.weight), round(float(path.decay), 6)
    assert f"weight {weight:g}, decay {decay:g}: validation ndcg@100 " in messages(caplog)[-1]
    ease = model_of_path(CLLM4RecConfig(order="time"), dataset).fit(dataset)
    qualities: dict[tuple[float, float], float] = {}
    alone, users = network_alone(model), np.arange(dataset.n_users)
    for each in (FIRST_DECAY, *DECAYS):
        of_ease = np.asarray(dataset.train.interactions.decayed(users, each) @ ease.weights)
        for factor in WEIGHTS if each == FIRST_DECAY else (weight,):
            qualities[factor, each] = validation_ndcg(alone + factor * of_ease, dataset)
    assert qualities[weight, decay] == max(qualities.values())
    of_ease = weight * np.asarray(dataset.train.interactions.decayed(users, decay) @ ease.weights)
    np.testing.assert_allclose(model.score(users, dataset.train), alone + of_ease, rtol=1e-4, atol=1e-4)
    model.save(tmp_path)
    loaded = CLLM4Rec.load(tmp_path)
    np.testing.assert_allclose(
        loaded.score(users, dataset.train), model.score(users, dataset.train), rtol=1e-5
    )


def test_a_path_that_does_not_help_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = taste_dataset()
    largest = linear_path.largest_entries

    def against(weights: np.ndarray, most: int) -> sp.csr_matrix:
        return -largest(weights, most)

    monkeypatch.setattr(linear_path, "largest_entries", against)
    with caplog.at_level("INFO", "cllm4rec"):
        model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(dataset, STAGES)
    assert model.net.linear is None
    assert messages(caplog)[-1].startswith("no linear path: ease does not raise validation ndcg@100 0.")


def test_the_network_learns_as_without_the_path() -> None:
    dataset = taste_dataset()
    with_path, without = (
        CLLM4Rec(CLLM4RecConfig(linear=linear)).fit(dataset, STAGES) for linear in ("ease", "none")
    )
    assert with_path.net.linear is not None
    for (name, one), other in zip(with_path.net.named_parameters(), without.net.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_another_finetuning_has_a_path_of_its_own() -> None:
    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(dataset, STAGES)
    assert model.net.linear is not None
    model.set_config(replace(model.config, linear="none"))
    model.fit_stage(dataset, "finetune", STAGES["finetune"])
    assert model.net.linear is None


@pytest.mark.parametrize("helpful", [0.0, 1.0])
def test_of_equal_weights_the_smallest_is_taken(helpful: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation metric is the same for all weights above 0."""

    def quality(model: CLLM4Rec, *arguments: object) -> float:
        return helpful * float(model.net.linear is not None and float(model.net.linear.weight) > 0)

    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(dataset, STAGES)
    monkeypatch.setattr(linear_path, "shared_validation", quality)
    model.fit_stage(dataset, "finetune", TrainConfig(epochs=0))
    path = model.net.linear
    assert (float(path.weight) if path else None) == (1.0 if helpful else None)


@pytest.mark.parametrize("better", [True, False])
def test_the_network_reads_each_user_once(better: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first weights are read again if they stay, as no validation of an epoch has read them."""
    dataset, calls = taste_dataset(), []
    encode, validation = CLLM4Rec._encode, neural.shared_validation

    def counted(model: CLLM4Rec, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(model.net.linear is not None)
        return encode(model, *arguments)

    def given(*arguments: Any) -> float:
        validation(*arguments)
        return len(calls) if better else -len(calls)

    monkeypatch.setattr(CLLM4Rec, "_encode", counted)
    monkeypatch.setattr(neural, "shared_validation", given)
    model = CLLM4Rec(CLLM4RecConfig(linear="ease", finetune_from="pretrained")).fit(dataset, STAGES)
    of_path = [] if better else [True]
    assert calls == [False, False, *of_path], "validations at the start and of the epoch"
    assert model.kept is None


def test_a_path_without_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(EASE, "fit", fail)
    model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(taste_dataset(), STAGES)
    assert model.net.linear is None
    assert messages(caplog) == ["no linear path: Unable to allocate 9 TiB"]


def test_a_signal_stops_before_the_path_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = taste_dataset()
    model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(dataset, STAGES)
    before = model.score(np.arange(3), dataset.train)
    monkeypatch.setattr(EASE, "fit", lambda *arguments: pytest.fail("it was fitted"))
    training = TrainConfig(epochs=0)
    asked = iter([True])
    hooks = Hooks(should_stop=lambda: next(asked))
    with pytest.raises(Stopped, match="after the last epoch"):
        model.fit_stage(dataset, "finetune", training, hooks)
    assert model.net.linear is None
    assert not np.allclose(model.score(np.arange(3), dataset.train), before)


def test_a_refused_finetuning_leaves_the_path() -> None:
    model = CLLM4Rec(CLLM4RecConfig(linear="ease")).fit(taste_dataset(), STAGES)
    before = model.score(np.arange(3), taste_dataset().train)
    refused(model.fit_stage, taste_dataset(seed=2, n_users=50), "finetune", TrainConfig(epochs=0))
    np.testing.assert_array_equal(model.score(np.arange(3), taste_dataset().train), before)


def test_vectors_that_are_gone_cost_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset, file = taste_dataset(), tmp_path / "vectors.npy"
    np.save(file, np.random.default_rng(0).normal(size=(dataset.n_items, 5)))
    model = CLLM4Rec(CLLM4RecConfig(item_vectors=str(file))).fit(dataset, STAGES)
    file.unlink()
    model.fit_stage(dataset, "finetune", STAGES["finetune"])
    assert f"the linear path reads no texts ({file}: there is no such file)" in caplog.messages
    asked = replace(model.config, linear="ease-text")
    model.set_config(asked)
    message = refused(model.fit_stage, dataset, "finetune", STAGES["finetune"])
    assert message.startswith(
        "`linear=ease-text` cannot read vectors of texts: take `linear=ease`, which needs"
    )


def test_a_resumed_finetuning_has_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the last epoch, before the path is added."""
    taste_dataset().save(tmp_path / "data")
    for name in ("whole", "stopped"):
        output = ["--output", tmp_path / name, "--backbone", "1x64", "--epochs", 0]
        call("pretrain", "--dataset", tmp_path / "data", *output)
    finetune = ["--epochs", 1, "--linear", "ease"]
    call("finetune", "--run", tmp_path / "whole", *finetune)

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recommender, "add_linear_path", stop)
    with pytest.raises(KeyboardInterrupt):
        call("finetune", "--run", tmp_path / "stopped", *finetune)
    monkeypatch.undo()
    call("finetune", "--run", tmp_path / "stopped", "--resume")
    whole, resumed = (
        load_file(tmp_path / name / "finetune/model.safetensors") for name in ("whole", "stopped")
    )
    assert "linear.weight" in whole
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name])


def test_without_validation_events_there_is_no_linear_path() -> None:
    """Nothing would choose its weight."""
    model = CLLM4Rec(CLLM4RecConfig(linear="ease"))
    message = refused(model.check, taste_dataset(split="none"))
    assert message.startswith("`linear=ease` chooses its weight on validation events and there are none")
    assert message.endswith("leave `linear` out, or prepare with a split")


def test_the_path_that_the_data_has() -> None:
    dataset, config = taste_dataset(), CLLM4RecConfig()
    assert config.linear == "auto"
    settings = model_of_path(config, dataset).config
    assert settings == EASEConfig(
        regularization=400.0, text_prior=True, prior_regularization=20.0, prior_share=0.9
    )
    assert not model_of_path(CLLM4RecConfig(item_text="none"), dataset).config.text_prior
    events = replace(dataset.interactions, reviews=None)
    without_texts = replace(dataset, interactions=events, items=dataset.items.select("item_id"))
    assert not model_of_path(config, without_texts).config.text_prior


def test_when_there_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config = taste_dataset(), CLLM4RecConfig()
    assert path_model(config, taste_dataset(split="none")) is None, "nothing chooses its weight"
    assert path_model(CLLM4RecConfig(order="time"), dataset) is not None
    assert path_model(CLLM4RecConfig(linear="none"), dataset) is None
    assert model_of_path(CLLM4RecConfig(order="time", linear="ease"), dataset) is not None
    assert model_of_path(CLLM4RecConfig(sampled=100), dataset) is not None
    assert dataset.n_items < MOST_ITEMS
    monkeypatch.setattr(linear_path, "MOST_ITEMS", dataset.n_items - 1)
    assert path_model(config, dataset) is None
    assert model_of_path(CLLM4RecConfig(linear="ease"), dataset) is not None, "it was asked for"


def test_without_validation_events_a_model_has_no_path() -> None:
    assert CLLM4Rec().fit(taste_dataset(split="none"), STAGES).net.linear is None
