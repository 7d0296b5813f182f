"""EASE with texts: its settings, how they are chosen, and that a fitted model needs nothing else."""

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cllm4rec
from cllm4rec.evaluation import measure
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.readings import text_vectors
from tests.support.commands import call, refusal, stage_settings
from tests.support.encoders import save_sentence_encoder
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

FIXED = EASEConfig(regularization=50.0, text_prior=True, prior_regularization=2.0, prior_share=0.9)


@cache
def chosen() -> tuple[EASE, list[str]]:
    """EASE that reads, all settings chosen; and what was logged."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("cllm4rec")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return EASE(EASEConfig(text_prior=True)).fit(taste_dataset()), lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "x"}, "`encoder` has no effect without `text_prior`"),
        ({"item_vectors": "x.npy"}, "`item_vectors` has no effect without `text_prior`"),
        ({"prior_share": 0.5}, "`prior_share` has no effect without `text_prior`"),
        ({"prior_regularization": 5.0}, "`prior_regularization` has no effect without `text_prior`"),
        ({"text_prior": True, "encoder": "x", "item_vectors": "x.npy"}, "give one of them"),
        ({"text_prior": True, "prior_share": 1.5}, "`prior_share` is 1.5: it may not be above 1"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, object], message: str) -> None:
    assert message in refused(lambda: EASEConfig(**settings))


def test_the_commands_name_the_flags(tmp_path: Path) -> None:
    taste_dataset().save(tmp_path / "data")
    flags = ("--system", "ease", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    line = refusal("pretrain", *flags, "--encoder", "x")
    assert line == "--encoder has no effect without --text-prior: give --text-prior, or leave it out"
    line = refusal("pretrain", *flags, "--text-prior", "--item-vectors", tmp_path / "none.npy")
    assert "there is no such file" in line
    assert not (tmp_path / "run").exists()


def test_items_without_texts_are_refused_before_a_run_is_made(tmp_path: Path) -> None:
    dataset = taste_dataset()
    bare = replace(
        dataset,
        items=dataset.items.select("item_id"),
        interactions=replace(dataset.interactions, reviews=None),
    )
    bare.save(tmp_path / "data")
    flags = ("--system", "ease", "--text-prior", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    assert "give --encoder or --item-vectors" in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()


def test_the_chosen_settings_are_the_best_of_those_logged() -> None:
    model, messages = chosen()
    *lines, takes, audit = messages
    assert audit.startswith("audit: ease: ")
    assert len(lines) == len(set(lines)) == 7 * 3 + 7 + 8, "settings that two grids share are tried once"
    quality = measure(model, taste_dataset(), "validation").metrics["ndcg@100"]
    logged = [float(line.split()[-1]) for line in lines]
    assert max(logged) == pytest.approx(quality, abs=5e-5)
    best = lines[int(np.argmax(logged))]
    assert takes == best.replace("ease ", "ease takes ", 1), "the first of equal ones"
    plain = [value for line, value in zip(lines, logged, strict=True) if '"prior_share": 0.0' in line]
    ease = EASE().fit(taste_dataset())
    assert max(plain) == pytest.approx(
        measure(ease, taste_dataset(), "validation").metrics["ndcg@100"], abs=5e-5
    )


def test_a_model_with_the_chosen_settings_given_is_the_same() -> None:
    model, _ = chosen()
    np.testing.assert_array_equal(EASE(model.config).fit(taste_dataset()).weights, model.weights)


def test_a_second_fit_reads_the_texts_of_its_data() -> None:
    model = EASE(FIXED).fit(taste_dataset(2))
    expected = EASE(FIXED).fit(taste_dataset())
    np.testing.assert_array_equal(model.fit(taste_dataset()).weights, expected.weights)
    assert model.read is None
    assert model.prior is None


def test_texts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, documents = [], text_vectors.item_documents
    monkeypatch.setattr(text_vectors, "item_documents", lambda train: read.append(train) or documents(train))
    model, dataset = EASE(FIXED), taste_dataset()
    model.check(dataset)
    model.fit(dataset)
    assert len(read) == 1


@pytest.mark.parametrize("source", ["encoder", "item_vectors"])
def test_a_saved_model_needs_neither_encoder_nor_file(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLLM4REC_CACHE", str(tmp_path / "cache"))
    dataset, place = taste_dataset(), tmp_path / ("model" if source == "encoder" else "vectors.npy")
    if source == "encoder":
        save_sentence_encoder(place)
    else:
        np.save(place, np.random.default_rng(0).normal(size=(dataset.n_items, 5)))
    dataset.save(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    flags = ["--text-prior", f"--{source.replace('_', '-')}", place.name, "--regularization", 50]
    flags += ["--prior-regularization", 2, "--prior-share", 0.9]
    call("pretrain", "--system", "ease", "--dataset", "data", "--output", "run", *flags)
    assert stage_settings(tmp_path / "run")["system"][source] == str(place), "as an absolute path"
    expected = EASE(replace(FIXED, **{source: str(place)})).fit(dataset).weights
    place.rename(tmp_path / "gone")
    (tmp_path / "cache").rename(tmp_path / "no cache") if source == "encoder" else None
    model = cllm4rec.load(tmp_path / "run")
    np.testing.assert_array_equal(model.weights, expected)
    assert len(model.recommend(dataset.user_ids.ids[:2], 5)) == 10


def test_a_run_that_was_not_fitted_is_resumed_with_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taste_dataset().save(tmp_path / "data")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    flags = ["--system", "ease", "--text-prior", "--prior-share", 0.9, "--prior-regularization", 2]
    flags += ["--regularization", 50, "--dataset", tmp_path / "data", "--output", tmp_path / "run"]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(EASE, "_fit", stopped)
        call("pretrain", *flags)
    call("pretrain", "--output", tmp_path / "run", "--resume")
    assert cllm4rec.load(tmp_path / "run").config == FIXED


def test_held_out_reviews_change_nothing() -> None:
    """Where items have no texts, reviews are read: those of training events alone."""
    dataset = taste_dataset()
    without = replace(dataset, items=dataset.items.select("item_id"))
    reviews = pl.Series(
        [
            text if part == 0 else ""
            for text, part in zip(without.interactions.reviews, without.part.tolist(), strict=True)
        ]
    )
    emptied = replace(without, interactions=replace(without.interactions, reviews=reviews))
    models = [EASE(FIXED).fit(data) for data in (without, emptied)]
    np.testing.assert_array_equal(models[0].weights, models[1].weights)
    assert not np.array_equal(models[0].weights, EASE(FIXED).fit(dataset).weights)
