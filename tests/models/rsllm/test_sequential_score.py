"""The score of the sequential recommender beside that of the language model."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cllm4rec.evaluation import measure, measure_choices
from cllm4rec.models import load
from cllm4rec.models.rsllm import sequential_score
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.rsllm.sequential_score import WEIGHTS, SequentialScore
from cllm4rec.models.sequential.config import SASRecConfig
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.records import VALIDATION_METRIC
from tests.support.rsllm import QUICK, small_dataset, untrained


@cache
def base() -> SASRec:
    """A sequential recommender that is better than an RSLLM of one epoch."""
    training = TrainConfig(epochs=60, batch_size=16, validate_every=10)
    return SASRec(SASRecConfig(dropout=0.1)).fit_stage(small_dataset(), "pretrain", training)


def fitted(**settings: Any) -> RSLLM:
    model = untrained(**settings)
    model.trained_base = base()
    return model.fit(small_dataset(), QUICK)


@pytest.fixture(scope="module")
def model() -> RSLLM:
    return fitted()


def test_joined_vectors_have_the_weighted_sum_of_both_inner_products() -> None:
    score, generator = SequentialScore(), torch.Generator().manual_seed(0)
    score.weight.fill_(0.5)
    (states, items), (further_states, further_items) = (
        (torch.randn(3, width, generator=generator), torch.randn(7, width, generator=generator))
        for width in (5, 4)
    )
    users, catalogue = score.join((states, items), (further_states, further_items))
    torch.testing.assert_close(users @ catalogue.T, states @ items.T + 0.5 * further_states @ further_items.T)


def test_scores_are_those_of_the_language_model_and_of_the_sequential_recommender(model: RSLLM) -> None:
    users, seen, score = np.arange(20), small_dataset().seen, model.net.sequential_score
    assert score is not None
    weight = float(score.weight)
    assert weight in WEIGHTS
    assert weight > 0, "the base is better than an epoch of RSLLM"
    score.weight.zero_()
    alone = model.score(users, seen)
    score.weight.fill_(weight)
    expected = alone + weight * base().score(users, seen)
    np.testing.assert_allclose(model.score(users, seen), expected, rtol=1e-4, atol=1e-4)


def test_the_weight_is_the_best_on_validation_events(model: RSLLM) -> None:
    dataset, score = small_dataset(), model.net.sequential_score
    assert score is not None
    chosen, quality = float(score.weight), {}
    for weight in WEIGHTS:
        score.weight.fill_(weight)
        quality[weight] = measure(model, dataset, "validation", metrics=[VALIDATION_METRIC]).metrics[
            VALIDATION_METRIC
        ]
    score.weight.fill_(chosen)
    assert chosen == max(quality, key=quality.__getitem__)


@pytest.mark.parametrize("by", ["scores", "language"])
def test_all_draws_of_candidates_read_the_histories_once(
    by: str, model: RSLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, read = small_dataset(), []
    encode = model._encode
    single = measure_choices(model, dataset, candidates=5, draws=1, by=by)
    monkeypatch.setattr(model, "_encode", lambda users, seen: read.append(users) or encode(users, seen))
    measured = measure_choices(model, dataset, candidates=5, draws=3, by=by)
    assert len(read) == 1
    assert model.kept is None
    hits = measured.per_user["hit_ratio@1"] * 3  # of three draws, the first of which is that of `single`
    assert (hits >= single.per_user["hit_ratio@1"] - 1e-9).all()


def test_a_saved_model_has_the_same_scores(model: RSLLM, tmp_path: Path) -> None:
    users, seen = np.arange(20), small_dataset().seen
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").score(users, seen), model.score(users, seen))


def test_without_it_scores_are_those_of_the_language_model(model: RSLLM) -> None:
    users, dataset = np.arange(20), small_dataset()
    plain = fitted(sequential_score="none")
    assert plain.net.sequential_score is None
    score = model.net.sequential_score
    assert score is not None
    weight = float(score.weight)
    score.weight.zero_()
    np.testing.assert_allclose(
        model.score(users, dataset.seen), plain.score(users, dataset.seen), rtol=1e-5, atol=1e-5
    )
    score.weight.fill_(weight)


def test_candidates_are_chosen_by_the_language_model_alone(model: RSLLM) -> None:
    users, dataset = np.arange(20), small_dataset()
    shown = np.array([np.random.default_rng(user).permutation(60)[:10] for user in users])
    plain = fitted(sequential_score="none")
    by_language = model.choose(users, shown, dataset.seen, "language")
    np.testing.assert_array_equal(by_language, plain.choose(users, shown, dataset.seen))
    assert (model.choose(users, shown, dataset.seen) != by_language).any(), "the base has a say"
    assert model.net.sequential_score is not None, "it is as it was"


def test_a_score_that_does_not_help_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    worse = untrained()
    worse.trained_base = base()
    monkeypatch.setattr(sequential_score, "shared_validation", lambda model, *_: -float(weight_of(model)))
    assert worse.fit(small_dataset(), QUICK).net.sequential_score is None


def weight_of(model: RSLLM) -> float:
    score = model.net.sequential_score
    assert score is not None
    return float(score.weight)


def test_without_validation_events_there_is_none() -> None:
    assert untrained().fit(small_dataset().train, QUICK).net.sequential_score is None


def test_further_training_without_validation_events_drops_it(model: RSLLM) -> None:
    again = deepcopy(model)
    again.fit_stage(small_dataset().train, "finetune", replace(QUICK, epochs=0))
    assert again.net.sequential_score is None, "there is nothing to choose on"


def test_an_interrupted_choice_leaves_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    stopped = untrained()
    stopped.trained_base = base()
    monkeypatch.setattr(sequential_score, "shared_validation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(small_dataset(), QUICK)
    assert stopped.net.sequential_score is None
