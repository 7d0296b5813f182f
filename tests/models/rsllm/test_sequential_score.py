"""The score of the sequential recommender beside that of the language model."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy.optimize import minimize
from scipy.special import logsumexp

from cllm4rec.corpora.rsllm import ContrastiveCorpus
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure, measure_choices
from cllm4rec.models import load, neural
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.models.rsllm import recommender, sequential_score
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.rsllm.sequential_score import LARGEST, SequentialScore, fitted_score
from cllm4rec.models.sequential.config import SASRecConfig
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from tests.support.commands import run_launched
from tests.support.rsllm import QUICK, small_dataset, untrained


@cache
def base() -> SASRec:
    """A sequential recommender that is better than an RSLLM of one epoch."""
    return sasrec(epochs=60)


@cache
def sasrec(epochs: int, seed: int = 0) -> SASRec:
    training = TrainConfig(epochs=epochs, batch_size=16, validate_every=10, seed=seed)
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
    assert weight > 0, "the base is better than an epoch of RSLLM"
    score.weight.zero_()
    alone = model.score(users, seen)
    score.weight.fill_(weight)
    expected = alone + weight * base().score(users, seen)
    np.testing.assert_allclose(model.score(users, seen), expected, rtol=1e-4, atol=1e-4)


def test_the_weight_is_the_most_likely_one_by_validation_events() -> None:
    dataset, systems = small_dataset(), (sasrec(seed=1, epochs=20), sasrec(seed=2, epochs=20))
    score = fitted_score(*systems, dataset, Accelerator(cpu=True))
    assert score is not None
    users = np.flatnonzero(np.diff(dataset.validation.interactions.indptr))
    first, second = (system.score(users, dataset.seen).astype(float) for system in systems)

    def nll_of(scales: np.ndarray) -> float:
        return nll(scales[0] * first + scales[1] * second, users)

    expected = minimize(nll_of, np.ones(2), method="Nelder-Mead")
    assert (expected.x > 0).all(), "both systems have a share, so that the bounds do not matter"
    assert float(score.weight) == pytest.approx(expected.x[1] / expected.x[0], rel=0.01)


def nll(scores: np.ndarray, users: np.ndarray) -> float:
    """The mean NLL of the validation events of users (B,), one event after the other."""
    dataset, values = small_dataset(), []
    for user, of_user in zip(users.tolist(), scores, strict=True):
        unseen = np.setdiff1d(np.arange(dataset.n_items), dataset.seen.interactions.history(user))
        values += [
            logsumexp(of_user[unseen]) - of_user[item]
            for item in dataset.validation.interactions.history(user).tolist()
        ]
    return float(np.mean(values))


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
    plain = fitted(sequential_score="none", prompt="text")
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
    plain = fitted(sequential_score="none", prompt="text")
    by_language = model.choose(users, shown, dataset.seen, "language")
    np.testing.assert_array_equal(by_language, plain.choose(users, shown, dataset.seen))
    assert (model.choose(users, shown, dataset.seen) != by_language).any(), "the base has a say"
    assert model.net.sequential_score is not None, "it is as it was"
    with (
        pytest.raises(ValueError, match="scores of rsllm are by scores or by language"),
        model.scored_by("x"),
    ):
        pass


def test_full_ranking_by_the_language_model_alone_is_that_of_a_run_without_the_score(model: RSLLM) -> None:
    users, dataset = np.arange(20), small_dataset()
    plain = fitted(sequential_score="none", prompt="text")
    with model.scored_by("language"):
        by_language = measure(model, dataset)
        np.testing.assert_array_equal(model.score(users, dataset.seen), plain.score(users, dataset.seen))
    assert by_language.metrics == measure(plain, dataset).metrics
    assert by_language.metrics != measure(model, dataset).metrics, "the score is back after the block"


def reversed_scores(monkeypatch: pytest.MonkeyPatch, system: InnerProductRecommender) -> None:
    """From here on, the best items of the system are its worst ones."""
    vectors = system._vectors

    def negated(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        states, items = vectors(*arguments)
        return -states, items

    monkeypatch.setattr(system, "_vectors", negated)


@pytest.mark.parametrize("worse", [0, 1])
def test_a_system_that_does_not_help_is_left_out(worse: int, monkeypatch: pytest.MonkeyPatch) -> None:
    systems = sasrec(seed=1, epochs=20), sasrec(seed=2, epochs=20)
    reversed_scores(monkeypatch, systems[worse])
    score = fitted_score(*systems, small_dataset(), Accelerator(cpu=True))
    if worse:
        assert score is None, "C_user stands alone"
    else:
        assert score is not None
        assert float(score.weight) == LARGEST, "C_user only breaks ties"


def test_few_users_at_once_do_not_change_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    systems = sasrec(seed=1, epochs=20), sasrec(seed=2, epochs=20)
    at_once = fitted_score(*systems, small_dataset(), Accelerator(cpu=True))
    monkeypatch.setattr(sequential_score, "SCORES_AT_ONCE", 3 * small_dataset().n_items)
    monkeypatch.setattr(sequential_score, "USERS_AT_ONCE", 7)
    in_parts = fitted_score(*systems, small_dataset(), Accelerator(cpu=True))
    assert at_once is not None and in_parts is not None
    torch.testing.assert_close(in_parts.weight, at_once.weight, rtol=1e-3, atol=0)


@pytest.mark.parametrize("qualities", [[0.1, 0.2, 0.3], [0.1, 0.3, 0.2]])
def test_the_weight_is_fitted_to_the_vectors_that_the_best_epoch_gave_in_validation(
    qualities: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, model, read, left = small_dataset(), untrained(), [], iter(qualities)
    model.trained_base = sequential = base()
    encode, validation = RSLLM._encode, neural.shared_validation

    def counted(model: RSLLM, users: np.ndarray, seen: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
        read.append(users)
        return encode(model, users, seen)

    def given(*arguments: Any) -> float:
        validation(*arguments)
        return next(left)

    monkeypatch.setattr(RSLLM, "_encode", counted)
    monkeypatch.setattr(neural, "shared_validation", given)
    stages = {"pretrain": QUICK, "finetune": replace(QUICK, epochs=3, validate_every=1)}
    model.fit(dataset, stages)
    assert len(read) == len(qualities), "the fit of the weight reads no user again"
    found, model.net.sequential_score = model.net.sequential_score, None
    assert found is not None
    expected = fitted_score(model, sequential, dataset, Accelerator(cpu=True))
    assert len(read) == len(qualities) + 1
    assert expected is not None and torch.equal(found.weight, expected.weight)


def test_the_weight_is_fitted_on_some_of_many_users(monkeypatch: pytest.MonkeyPatch) -> None:
    systems, dataset = (sasrec(seed=1, epochs=20), sasrec(seed=2, epochs=20)), small_dataset()
    monkeypatch.setattr(systems[0], "most_validated_users", 5)
    on_some = fitted_score(*systems, dataset, Accelerator(cpu=True))
    users = np.linspace(0, dataset.n_users - 1, 5).astype(int)
    monkeypatch.setattr(sequential_score, "users_to_validate", lambda *_: users)
    on_those = fitted_score(*systems, dataset, Accelerator(cpu=True))
    assert on_some is not None and on_those is not None
    torch.testing.assert_close(on_some.weight, on_those.weight)
    monkeypatch.undo()
    on_all = fitted_score(*systems, dataset, Accelerator(cpu=True))
    assert on_all is not None
    assert float(on_all.weight) != float(on_some.weight)


# fitted_score by processes that share the users of two saved systems
IN_PROCESSES = """
import sys
from pathlib import Path

from accelerate import Accelerator

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.rsllm import sequential_score
from cllm4rec.models.sequential.sasrec import SASRec

folder, accelerator = Path(sys.argv[1]), Accelerator(cpu=True)
sequential_score.USERS_AT_ONCE = 7
systems = SASRec.load(folder / "first"), SASRec.load(folder / "second")
score = sequential_score.fitted_score(*systems, Dataset.load(folder / "data"), accelerator)
(folder / f"{accelerator.process_index}-of-{accelerator.num_processes}").write_text(str(float(score.weight)))
accelerator.state.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_share_the_users_and_get_one_weight(tmp_path: Path) -> None:
    systems = sasrec(seed=1, epochs=20), sasrec(seed=2, epochs=20)
    for name, system in zip(("first", "second"), systems, strict=True):
        system.save(tmp_path / name)
    small_dataset().save(tmp_path / "data")
    (tmp_path / "fit.py").write_text(IN_PROCESSES)
    run_launched(2, tmp_path / "fit.py", tmp_path)
    first, second = (float((tmp_path / f"{process}-of-2").read_text()) for process in (0, 1))
    alone = fitted_score(*systems, small_dataset(), Accelerator(cpu=True))
    assert alone is not None
    assert first == second == pytest.approx(float(alone.weight), rel=1e-3)


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
    monkeypatch.setattr(recommender, "fitted_score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(small_dataset(), QUICK)
    assert stopped.net.sequential_score is None


@pytest.mark.parametrize(
    ("settings", "validated", "form"),
    [
        ({}, True, "text"),
        ({}, False, "unified"),
        ({"sequential_score": "none"}, True, "unified"),
        ({"prompt": "ids"}, True, "ids"),
        ({"prompt": "unified"}, True, "unified"),
    ],
)
def test_prompts_are_titles_beside_the_score_and_unified_without_it(
    settings: dict[str, Any], validated: bool, form: str, tmp_path: Path
) -> None:
    dataset = small_dataset() if validated else small_dataset().train
    model = untrained(**settings).fit(dataset, replace(QUICK, epochs=0))
    if "prompt" in settings:
        model.config = replace(model.config, prompt="auto")  # that of training remains
    (objective,) = model.objectives(dataset.train, "finetune", QUICK)
    assert isinstance(objective.corpus, ContrastiveCorpus)
    assert objective.corpus.writer.form == form, "training"
    model.save(tmp_path / "model")
    for each in (model, load(tmp_path / "model")):
        assert isinstance(each, RSLLM)
        assert each.writer(dataset.seen.items).form == form, "scoring"
