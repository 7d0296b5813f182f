"""Vectors of items for closed forms: words against scikit-learn, and which texts are read."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.readings import text_vectors as module
from cllm4rec.models.readings.config import TextVectorConfig
from cllm4rec.models.readings.text_vectors import text_vectors
from tests.support.tables import refused
from tests.support.worlds import renumbered, taste_dataset

WORDS = [f"w{number}" for number in range(40)]


def library(with_events: int, n_items: int = 60) -> Dataset:
    """Books with titles of random words; the first `with_events` have training events."""
    generator = np.random.default_rng(1)
    titles = [" ".join(generator.choice(WORDS, 6)) for _ in range(n_items)]
    items = pl.DataFrame({"item_id": list(range(n_items)), "title": titles})
    parts = ["train" if item < with_events else "test" for item in range(n_items)]
    events = pl.DataFrame({"user_id": ["u"] * n_items, "item_id": list(range(n_items)), "part": parts})
    return Dataset.from_frame(events, items)


def by_scikit_learn(texts: Sequence[str], in_training: np.ndarray) -> np.ndarray:
    """TF-IDF (n_items, V), its vocabulary and weights from the rows of training."""
    vectorizer = TfidfVectorizer(token_pattern=r"\w+", min_df=5, max_df=0.5, sublinear_tf=True)
    vectorizer.fit([text for text, trained in zip(texts, in_training, strict=True) if trained])
    return np.asarray(vectorizer.transform(texts).toarray())


@pytest.mark.parametrize("with_events", [60, 45])
def test_words_are_weighted_as_by_scikit_learn(with_events: int) -> None:
    dataset = library(with_events)
    in_training = np.bincount(dataset.train.interactions.items, minlength=60) > 0
    assert in_training.sum() == with_events
    expected = by_scikit_learn(dataset.items["title"].to_list(), in_training)
    found = text_vectors(TextVectorConfig(), dataset)
    assert found.values.shape == expected.shape
    assert found.item_ids.equals(dataset.item_ids.ids)
    np.testing.assert_allclose(found.values @ found.values.T, expected @ expected.T, atol=1e-6)
    np.testing.assert_array_equal(found.present, expected.any(1))


def test_many_words_are_reduced_to_their_leading_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the items with training events; others are mapped by the same directions."""
    monkeypatch.setattr(module, "DIRECTIONS", 8)
    dataset = library(45)
    in_training = np.bincount(dataset.train.interactions.items, minlength=60) > 0
    tfidf = by_scikit_learn(dataset.items["title"].to_list(), in_training)
    right = np.linalg.svd(tfidf[in_training], full_matrices=False)[2][:8]
    found = text_vectors(TextVectorConfig(), dataset)
    assert found.values.shape == (60, 8)
    expected = tfidf @ right.T
    np.testing.assert_allclose(found.values @ found.values.T, expected @ expected.T, atol=1e-5)


def test_the_numbering_of_the_items_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECTIONS", 8)
    dataset, order = library(60), np.random.default_rng(2).permutation(60)
    one, two = (
        text_vectors(TextVectorConfig(), data).values for data in (dataset, renumbered(dataset, order))
    )
    np.testing.assert_allclose(two @ two.T, (one @ one.T)[np.ix_(order, order)], atol=1e-5)


def test_a_file_gives_its_vectors_as_they_are(tmp_path: object) -> None:
    values = np.random.default_rng(0).normal(3, 2, (60, 4)).astype(np.float32)
    file = f"{tmp_path}/vectors.npy"
    np.save(file, values)
    found = text_vectors(TextVectorConfig(item_vectors=file), taste_dataset())
    np.testing.assert_array_equal(found.values, values)


def test_texts_without_common_words_are_refused() -> None:
    events = pl.DataFrame({"user_id": ["u"] * 4, "item_id": list(range(4))})
    dataset = Dataset.from_frame(events, pl.DataFrame({"item_id": list(range(4)), "title": ["a b"] * 4}))
    assert "no word is in 5 to half of the items" in refused(text_vectors, TextVectorConfig(), dataset)
