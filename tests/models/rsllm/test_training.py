"""Training of RSLLM in two stages, and its scores."""

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.models import system_class
from cllm4rec.models.baselines.popularity import Popularity
from cllm4rec.models.language import loading
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.config import SASRecConfig
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from tests.support.rsllm import QUICK, sasrec, small_dataset, trained, untrained
from tests.support.systems import recall_at_1
from tests.support.worlds import cycle_dataset


def test_the_next_item_of_a_cycle_is_certain() -> None:
    dataset = cycle_dataset(titled=True)
    model = RSLLM(RSLLMConfig(dropout=0.1))
    model.fit_stage(dataset.train, "pretrain", TrainConfig(epochs=2, batch_size=16))
    model.fit_stage(dataset.train, "finetune", TrainConfig(epochs=30, batch_size=16, learning_rate=1e-3))
    assert recall_at_1(model, dataset) == 1.0
    assert recall_at_1(Popularity().fit(dataset.train), dataset) < 0.3


def test_the_embeddings_of_gru4rec_are_used() -> None:
    model = RSLLM(RSLLMConfig(sequential="gru4rec", title_words=4))
    base = model.base_system
    assert (base.name, base.config.item_text) == ("gru4rec", "auto")
    model.trained_base = system_class("gru4rec")().fit_stage(small_dataset().train, "pretrain", QUICK)
    model.fit(small_dataset(), QUICK)
    assert model.net.items.shape == model.trained_base.net.items.shape
    assert np.isfinite(model.score(np.arange(5), small_dataset().train)).all()


@pytest.mark.parametrize("n", [0, 5])
def test_the_state_of_a_history_does_not_depend_on_the_candidates(n: int) -> None:
    model, dataset = trained(candidates=5), small_dataset()
    writer, table = model.writer(dataset.items), model.net.projected()
    history, generator = dataset.train.interactions.history(3), np.random.default_rng(0)
    named = generator.permutation(dataset.n_items)[:n] if n else None

    def state(candidates: np.ndarray | None) -> torch.Tensor:
        shown = None if candidates is None else Ragged.from_lists([candidates])
        prompts, _ = writer.fill(Ragged.from_lists([history]), 1000, shown)
        with torch.no_grad():
            tokens, mask = torch.from_numpy(prompts.tokens), torch.from_numpy(prompts.mask)
            states = model.net.backbone(tokens, mask, table)
        return states.flatten(0, 1)[prompts.query_index[0]]

    expected = state(named)
    for candidates in (None if named is None else named[::-1], None):
        torch.testing.assert_close(state(candidates), expected, rtol=1e-5, atol=1e-5)


def test_the_projector_starts_as_an_isometry() -> None:
    model = untrained().build(small_dataset().train)
    table, embeddings = model.net.projected().detach(), model.net.items.detach()
    torch.testing.assert_close(table @ table.T, embeddings @ embeddings.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(embeddings.numpy(), sasrec().net.items.detach().numpy())
    words = model.net.backbone.token_embeddings.detach().std() * model.net.backbone.token_scale
    assert float(table.std()) * model.net.backbone.id_scale == pytest.approx(float(words.detach()), rel=1e-4)


def test_stage_1_trains_the_language_model_and_nothing_else() -> None:
    model = untrained().build(small_dataset().train)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    model = untrained().fit_stage(small_dataset().train, "pretrain", QUICK)
    moved = {name for name, p in model.net.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("backbone") for name in moved)
    assert not [name for name in moved if not name.startswith("backbone")]


def test_scores_are_products_of_the_state_at_the_history_and_the_projected_items() -> None:
    model, dataset = trained(), small_dataset()
    history = dataset.train.interactions.history(5)
    # with the question, which changes nothing
    prompts, _ = model.writer(dataset.items).fill(Ragged.from_lists([history[-20:]]), 1000)
    tokens, mask = torch.from_numpy(prompts.tokens), torch.from_numpy(prompts.mask)
    with torch.no_grad():
        table = model.net.projected()
        states = model.net.norm(model.net.backbone(tokens, mask, table).flatten(0, 1))
        expected = (states[prompts.query_index[0]] @ table.T).numpy()
    with model.scored_by("language"):
        scores = model.score(np.array([5]), dataset.train)[0]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_data_of_users_with_one_training_event_are_refused() -> None:
    events = pl.DataFrame({"user_id": list("aaabbb"), "item_id": list("xyzyzx"), "timestamp": [1, 2, 3] * 2})
    items = pl.DataFrame({"item_id": list("xyz"), "title": ["one", "two", "three"]})
    dataset = Dataset.from_frame(events, items, split="leave-last-out")
    for model in (SASRec(), untrained()):
        with pytest.raises(ValueError, match="nothing to learn from"):
            model.fit_stage(dataset.train, "pretrain", TrainConfig(epochs=1))


def test_titles_are_needed_except_for_id_only_prompts() -> None:
    dataset = cycle_dataset()
    with pytest.raises(ValueError, match="items that has titles, or set `prompt` to ids"):
        RSLLM().build(dataset.train)
    model = RSLLM(RSLLMConfig(prompt="ids")).build(dataset.train)
    assert model.score(np.array([0]), dataset.train).shape == (1, 20)


def test_titles_of_items_without_training_events_reach_neither_vocabulary_nor_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = small_dataset()
    cold = int(dataset.test.interactions.items[0])
    is_cold = (dataset.interactions.items == cold) & (dataset.part == 0)
    part = np.where(is_cold, 2, dataset.part).astype(np.uint8)
    titles = [
        f"Qyzzq {number}" if number == cold else title for number, title in enumerate(dataset.items["title"])
    ]
    dataset = replace(dataset, part=part, items=dataset.items.with_columns(title=pl.Series(titles)))
    read: list[str] = []
    train_bpe = loading.train_bpe
    monkeypatch.setattr(
        loading, "train_bpe", lambda texts: train_bpe([read.append(text) or text for text in texts])
    )
    model = untrained(candidates=20).build(dataset.train)
    assert read
    assert not any("Qyzzq" in text for text in read)
    for stage in model.stages:
        (objective,) = model.objectives(dataset.train, stage, QUICK)
        batch = objective.corpus.batch(np.arange(60), 0)
        words = batch.tokens[batch.mask & (batch.tokens < model.tokenizer.n_text_tokens)]
        assert "Qyzzq" not in model.tokenizer.decode(words.tolist())


@pytest.fixture
def llama(shared: Path) -> Path:
    return shared / "backbones" / "stories260K"


def test_a_pretrained_backbone_is_tuned_by_adapters_and_stays_unchanged(llama: Path, tmp_path: Path) -> None:
    model = untrained(backbone=str(llama))
    model.fit_stage(small_dataset().train, "pretrain", QUICK)
    before = model.net.backbone.fingerprint()
    model.fit_stage(small_dataset().train, "finetune", QUICK)
    trained_names = [name for name in model._trained() if name.startswith("backbone")]
    assert trained_names
    assert all(".lora_" in name for name in trained_names)
    assert model.net.backbone.fingerprint() == before
    assert loading.load_backbone(RSLLMConfig(backbone=str(llama), tune="frozen"))[0].fingerprint() == before
    model.save(tmp_path)
    again = RSLLM.load(tmp_path)
    scores, expected = (system.score(np.arange(9), small_dataset().train) for system in (again, model))
    np.testing.assert_array_equal(scores, expected)


def test_a_frozen_backbone_leaves_the_first_stage_nothing_to_train(
    llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its prompts hold no soft token. The second stage trains the projector and the ID embeddings."""
    model, records, dataset = (
        untrained(backbone=str(llama), tune="frozen"),
        list[EpochRecord](),
        small_dataset(),
    )
    with caplog.at_level(logging.INFO, "cllm4rec"):
        model.fit_stage(dataset, "pretrain", QUICK, Hooks(records.append))
    assert "text: no trained weight takes part in it, its steps are left out" in caplog.text
    assert [record.losses for record in records] == [{}]
    before = {name: array.copy() for name, array in model._arrays().items()}
    model.fit_stage(dataset, "finetune", QUICK, Hooks(records.append))
    assert records[-1].losses["unified"] > 0
    after = model._arrays()
    assert all(not np.array_equal(after[name], before[name]) for name in ("items", "projector.2.weight"))


def test_adapters_without_their_library_are_refused_in_one_line(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else real(name, *rest)
    )
    with pytest.raises(ValueError, match=r"pip install peft \(extra cllm4rec\[lora\]\)"):
        untrained(backbone=str(llama)).build(small_dataset().train)


def test_nothing_is_learned_from_random_histories() -> None:
    """The next item is any of the twelve left: 5 of 60 users, and 15 or more with probability 1e-4."""
    dataset = cycle_dataset(titled=True, at_random=True)
    model = RSLLM(RSLLMConfig(dropout=0.1, sequential_score="none"))
    model.fit(dataset, replace(QUICK, epochs=3))
    assert recall_at_1(model, dataset) < 0.25


def test_the_texts_of_a_sequential_recommender_reach_the_soft_tokens() -> None:
    dataset = small_dataset()
    base = SASRec(SASRecConfig(item_text="words")).fit_stage(dataset, "pretrain", QUICK)
    model = RSLLM(RSLLMConfig())
    model.trained_base = base
    model.build(dataset.train)
    vectors = base.net.item_vectors().detach()
    torch.testing.assert_close(model.net.items.detach(), vectors)
    assert not torch.equal(vectors, base.net.items.detach()), "texts add something"
