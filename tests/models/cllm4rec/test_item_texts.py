"""Texts in the item vectors of CLLM4Rec: input and softmax read them, the mutual pull does not."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from cllm4rec.models import neural
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.reviewed_books import reviewed_books

STAGES = {"pretrain": TrainConfig(epochs=1), "finetune": TrainConfig(epochs=1)}


def built(**settings: object) -> CLLM4Rec:
    """An untrained model on the reviewed books, whose texts have random vectors."""
    model = CLLM4Rec(CLLM4RecConfig(item_text="words", linear="none", **settings)).build(reviewed_books())  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for text in (model.net.item_text, model.net.user_text):
        assert text is not None
        for parameter in text.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_losses_are_those_of_a_network_whose_tables_hold_the_sums(stage: str) -> None:
    """z = e + t stands at the input and in the softmax; the mutual pull and the prior are on e alone."""
    model, train = built(content_ratio=0), reviewed_books().train
    objective = model.objectives(train, stage, TrainConfig())[-1]
    batch = objective.corpus.batch(objective.corpus.selection(0), 0)
    with torch.no_grad():
        terms = model.net(objective.name, batch)
        vectors = model.net.id_vectors()
        sums = torch.cat([vectors.of_users(torch.arange(train.n_users)), vectors.items])
        before = model.net.collaborative.whole()
        model.net.item_text = model.net.user_text = None
        pulls = model.net(objective.name, batch)
        model.net.collaborative.fill(sums)
        summed = model.net(objective.name, batch)
    torch.testing.assert_close(terms[objective.name], summed[objective.name], rtol=1e-5, atol=1e-5)
    assert not torch.isclose(terms[objective.name], pulls[objective.name], rtol=1e-3)
    for name in ("mutual", "prior"):
        torch.testing.assert_close(terms[name], pulls[name])
    assert not torch.equal(before, sums)


def test_a_sampled_softmax_over_all_items_has_the_same_loss_and_gradients() -> None:
    """Its vectors are computed for the items at hand alone."""
    losses, slopes = [], []
    train = reviewed_books().train
    for sampled in (0, 1000):
        model = built(content_ratio=0, sampled=sampled, user_dropping=0.0)
        objective = model.objectives(train, "finetune", TrainConfig())[-1]
        batch = objective.corpus.batch(np.arange(9), 0)
        loss = model.net("recommend", batch)["recommend"]
        assert model.net.item_text is not None
        losses.append(loss)
        slopes.append(torch.autograd.grad(loss, [*model.net.item_text.parameters()]))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for full, of_sample in zip(*slopes, strict=True):
        assert (full - of_sample).norm() < 1e-4 * full.norm()


@pytest.mark.parametrize("source", ["words", "both"])
def test_training_moves_texts_and_a_saved_model_scores_the_same(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = count()  # else the weights at the start may be kept
    monkeypatch.setattr(neural, "shared_validation", lambda *_: float(next(rising)))
    dataset = reviewed_books()
    settings = {"item_text": source, "linear": "ease"}  # which reads no vectors
    if source == "both":
        np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(dataset.n_items, 5)))
        settings["item_vectors"] = str(tmp_path / "vectors.npy")
    model = CLLM4Rec(CLLM4RecConfig(**settings)).fit(dataset, STAGES)  # type: ignore[arg-type]
    assert model.net.item_text is not None
    assert all(parameter.any() for parameter in model.net.item_text.parameters())
    users = np.arange(dataset.n_users)
    scores = model.score(users, dataset.train)
    model.save(tmp_path / "model")
    (tmp_path / "vectors.npy").unlink(missing_ok=True)
    loaded = CLLM4Rec.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.score(users, dataset.train), scores, rtol=1e-5, atol=1e-5)
    further = loaded.fit_stage(dataset, "finetune", TrainConfig(epochs=1))
    assert not np.allclose(further.score(users, dataset.train), scores)


def test_without_texts_nothing_is_added() -> None:
    model = CLLM4Rec(CLLM4RecConfig(item_text="none")).build(reviewed_books())
    assert model.net.item_text is None
    assert model.net.user_text is None
