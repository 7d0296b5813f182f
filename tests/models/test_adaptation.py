"""Fitted models for datasets with further users and items, or fewer users."""

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from cllm4rec import CLLM4Rec, CLLM4RecConfig, Dataset, TrainConfig, load
from cllm4rec.data.extension import extended, without_users
from cllm4rec.models import SYSTEMS
from cllm4rec.models.adaptation import UnreadItemsError, nearest_known
from cllm4rec.models.base import Recommender
from cllm4rec.models.cllm4rec.linear_path import LinearPath
from tests.models.test_explanation import titled_dataset
from tests.support.datasets import random_events
from tests.support.encoders import save_sentence_encoder
from tests.support.folders import texts_in
from tests.support.systems import fit, fitted, new_system
from tests.support.worlds import taste_dataset

DATASET = titled_dataset()
NEW = pl.DataFrame({"item_id": ["n1", "n2"], "title": ["tale1 of2", "night tale3 tale3 never-read"]})
WRITER = "u1"  # of reviews
READERS = ("cllm4rec", "bag", "sasrec that reads")


@cache
def reader(name: str) -> Recommender:
    """A system that reads titles."""
    if name == "cllm4rec":
        return fit(CLLM4Rec(CLLM4RecConfig(backbone="1x64")), DATASET, TrainConfig(epochs=2, patience=2))
    name, settings = ("sasrec", {"item_text": "words"}) if name.startswith("sasrec") else (name, {})
    return fit(new_system(name, **settings), DATASET)


def scores(model: Recommender, dataset: Dataset) -> np.ndarray:
    return model.score(np.arange(dataset.n_users), dataset.seen)


@pytest.mark.parametrize("name", READERS)
def test_known_items_keep_their_scores_and_new_ones_are_their_words(name: str) -> None:
    model, wide = reader(name), extended(DATASET, NEW).dataset
    adapted = model.adapted_to(wide)
    found = scores(adapted, wide)
    np.testing.assert_array_equal(found[:, : DATASET.n_items], scores(model, DATASET))
    assert np.isfinite(found).all()
    text = model.net.item_text  # type: ignore[attr-defined]
    vocabulary = text.word_list
    for item, title in NEW.iter_rows():
        words = [word for word in {*title.split(), " ".join(title.split()[:2])} if word in vocabulary]
        rows = [text.words[vocabulary.index(word)] for word in words]
        expected = torch.stack(rows).sum(0) * text.rate / len(rows) ** 0.5
        (number,) = wide.item_ids.index([item])
        torch.testing.assert_close(adapted.item_vectors()[number], expected.detach())


@pytest.mark.parametrize("name", READERS)
def test_new_items_are_recommended_and_are_histories(name: str, tmp_path: object) -> None:
    adapted = reader(name).adapted_to(extended(DATASET, NEW).dataset)
    adapted.save(f"{tmp_path}/model")
    model = load(f"{tmp_path}/model")
    lists = [each.recommend(histories=[["n1"]], k=100) for each in (adapted, model)]
    assert lists[0]["item_id"].equals(lists[1]["item_id"])
    np.testing.assert_allclose(*(table["score"] for table in lists), rtol=1e-5, atol=1e-6)
    assert "n2" in lists[0]["item_id"] and "n1" not in lists[0]["item_id"]


def test_an_item_that_training_saw_only_as_a_negative_has_its_words_alone() -> None:
    """An item that `prepare` kept without events has the vector that `extend` would give it."""
    events = pl.DataFrame({name: ids for name, ids in _events(DATASET).items()})
    items = pl.concat([DATASET.items, NEW])
    kept = Dataset.from_frame(events, items, split="random", keep_all_items=True)
    model = fit(new_system("bag"), kept)
    text = model.net.item_text  # type: ignore[attr-defined]
    (number,) = kept.item_ids.index(["n1"])
    with torch.no_grad():
        expected = text.eval()(torch.tensor([number]))[0]
    torch.testing.assert_close(model.item_vectors()[number], expected)
    (known,) = np.flatnonzero(kept.train.interactions.item_has_event)[:1]
    with torch.no_grad():
        assert not torch.allclose(model.item_vectors()[known], text(torch.tensor([known]))[0])


def _events(dataset: Dataset) -> dict[str, pl.Series]:
    events = dataset.interactions
    return {"user_id": dataset.user_ids.names(events.users), "item_id": dataset.item_ids.names(events.items)}


def test_vectors_of_an_encoder_are_mapped_as_in_training(tmp_path: object) -> None:
    """An item with the title of a known one has its text vector."""
    encoder = str(save_sentence_encoder(tmp_path))
    model = fit(new_system("bag", encoder=encoder, item_text="both"), DATASET)
    title = DATASET.items["title"][3]
    wide = extended(DATASET, pl.DataFrame({"item_id": ["n1"], "title": [title]})).dataset
    text = model.adapted_to(wide).net.item_text  # type: ignore[attr-defined]
    torch.testing.assert_close(text.vectors[-1], text.vectors[3], atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(text.vectors[:-1], model.net.item_text.vectors)  # type: ignore[attr-defined]


def test_items_without_a_known_word_are_named() -> None:
    items = pl.concat([NEW, pl.DataFrame({"item_id": ["n3"], "title": ["unheard"]})])
    with pytest.raises(UnreadItemsError, match=r"item 'n3' has no text .*\(1 of 3 new items\)") as error:
        reader("bag").adapted_to(extended(DATASET, items).dataset)
    assert error.value.ids == ["n3"]


def test_new_items_cannot_be_read_where_reviews_are_the_only_texts() -> None:
    dataset = reviewed_dataset()
    model = fit(new_system("bag"), dataset)
    with pytest.raises(ValueError, match="the dataset has no texts of items but reviews"):
        model.adapted_to(extended(dataset, NEW).dataset)


def test_systems_without_texts_know_nothing_of_new_items() -> None:
    dataset = taste_dataset()
    wide = extended(dataset, pl.DataFrame({"item_id": ["x"], "title": ["tale"]})).dataset
    with pytest.raises(ValueError, match="this ease has no vectors that read texts"):
        fitted("ease").adapted_to(wide)
    with pytest.raises(ValueError, match="the dataset lacks 1 item of the model"):
        fitted("ease").adapted_to(_without_an_item(dataset))


def _without_an_item(dataset: Dataset) -> Dataset:
    events = pl.DataFrame(_events(dataset)).filter(pl.col("item_id") != dataset.item_ids.ids[0])
    return Dataset.from_frame(events)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_saved_model_does_not_name_forgotten_users(name: str, tmp_path: Path) -> None:
    dataset, model = taste_dataset(), fitted(name)
    forgotten = dataset.user_ids.ids[2]
    model.save(tmp_path / "before")
    model.adapted_to(without_users(dataset, [forgotten])).save(tmp_path / "after")
    assert f"'{forgotten}'" in texts_in(tmp_path / "before")
    assert f"'{forgotten}'" not in texts_in(tmp_path / "after")


@pytest.mark.parametrize("name", ["cllm4rec", "bag"])
def test_words_of_forgotten_reviews_are_forgotten(name: str, tmp_path: Path) -> None:
    """Reviews are the only texts: an item without a review of the user keeps its words and vector."""
    dataset = reviewed_dataset()
    forgotten = WRITER
    encoder = str(save_sentence_encoder(tmp_path / "encoder"))
    settings = {"encoder": encoder, "item_text": "both"} | (
        {"backbone": "1x64"} if name == "cllm4rec" else {}
    )
    model = fit(new_system(name, **settings), dataset)
    text = model.net.item_text  # type: ignore[attr-defined]
    (word,) = [number for number, each in enumerate(text.word_list) if each == "xanthopsia"]
    with torch.no_grad():  # words begin as zeros, and the first weights may be the best
        text.words += torch.linspace(-1, 1, text.words.shape[-1])
    fewer = without_users(dataset, [forgotten])
    adapted = model.adapted_to(fewer)
    adapted.save(tmp_path / "after")
    after = adapted.net.item_text  # type: ignore[attr-defined]
    assert "xanthopsia" not in texts_in(tmp_path / "after")
    assert not after.words[word].any() and text.words[word].any()
    own = dataset.train.interactions.history(int(dataset.user_ids.index([forgotten])[0]))
    others = np.setdiff1d(np.arange(dataset.n_items), own)
    assert len(own) and len(others)
    np.testing.assert_array_equal(after.vectors[others], text.vectors[others])
    assert not np.allclose(after.vectors[own], text.vectors[own], atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(after()[others], text()[others])
        assert not torch.allclose(after()[own], text()[own])


def reviewed_dataset() -> Dataset:
    """Random events with reviews of two words of their item; WRITER names an ailment too."""
    events = random_events(reviews=False).filter(pl.col("user_id").is_in([f"u{n}" for n in range(12)]))
    number = pl.col("item_id").str.slice(1).cast(pl.Int64)
    own = pl.when(pl.col("user_id") == WRITER).then(pl.lit("my xanthopsia")).otherwise(pl.lit("fine"))
    words = pl.format("{} tale{} of{}", own, number % 4, number % 3)
    return Dataset.from_frame(events.with_columns(review_text=words), split="random")


@pytest.mark.parametrize("name", SYSTEMS)
def test_other_users_keep_their_scores_when_one_is_forgotten(name: str) -> None:
    dataset, model = taste_dataset(), fitted(name)
    fewer = without_users(dataset, [dataset.user_ids.ids[2], dataset.user_ids.ids[5]])
    adapted = model.adapted_to(fewer)
    kept = dataset.user_ids.index(fewer.user_ids.ids)
    np.testing.assert_allclose(scores(adapted, fewer), scores(model, dataset)[kept], rtol=1e-5, atol=1e-5)
    assert adapted.user_ids.ids.equals(fewer.user_ids.ids)
    assert len(adapted.has_history) == fewer.n_users


def test_a_new_item_is_the_mixture_of_its_nearest_ones() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [3.0, 4.0]])
    shares = nearest_known(vectors, np.array([0, 1, 2, -1]), np.array([True, True, False, False])).toarray()
    np.testing.assert_allclose(shares[:, :3], np.eye(3))
    np.testing.assert_allclose(shares[:, 3], [0.6 / 1.4, 0.8 / 1.4, 0.0], rtol=1e-6)


def test_the_linear_path_scores_a_mixture_by_its_parts() -> None:
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(6, 6)).astype(np.float32)
    np.fill_diagonal(dense, 0.0)
    path = LinearPath.of(sp.csr_matrix(dense))
    path.weight.fill_(2.0)
    path.decay.fill_(0.5)
    shares = np.zeros((6, 7), dtype=np.float32)
    shares[np.arange(6), np.arange(6)] = 1
    shares[[1, 4], 6] = 0.25, 0.75
    new = path.among(sp.csr_matrix(shares), np.arange(7) == 6)
    np.testing.assert_allclose(new.matrix.toarray(), shares.T @ dense @ shares, rtol=1e-5, atol=1e-6)
    assert (float(new.weight), float(new.decay)) == (2.0, 0.5)
