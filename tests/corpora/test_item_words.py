"""Words and bigrams of texts, counted by hand."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.corpora.item_words import count_words, item_documents, user_documents
from cllm4rec.data.dataset import Dataset
from tests.support.reviewed_books import reviewed_books

DOCUMENTS = [
    ["The red River", "red"],
    ["red river"],
    ["the red RIVER red river"],
    [],
    ["the unknown red river"],
]
TRAINED = np.array([True, True, True, True, False])


def test_words_and_bigrams_are_counted_within_a_text() -> None:
    counts = count_words(DOCUMENTS, TRAINED, min_rows=2)
    assert counts.vocabulary == ["red", "red river", "river", "the", "the red"]
    assert counts.matrix.toarray().tolist() == [
        [2, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [2, 2, 2, 1, 1],
        [0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0],  # not in training: no new words
    ]


def test_words_of_too_few_or_too_many_rows_are_left_out() -> None:
    assert count_words(DOCUMENTS, TRAINED, bigrams=False, min_rows=3).vocabulary == ["red", "river"]
    assert count_words(DOCUMENTS, TRAINED, bigrams=False, min_rows=2, max_share=0.5).vocabulary == ["the"]
    assert count_words(DOCUMENTS, TRAINED, min_rows=4).matrix.shape == (5, 0)
    assert count_words([[], []], np.ones(2, dtype=bool)).matrix.shape == (2, 0)


def test_a_bag_has_equal_weights_of_its_most_specific_words() -> None:
    counts = count_words(DOCUMENTS, TRAINED, min_rows=2)
    np.testing.assert_allclose(
        counts.bags(9).toarray()[:4],
        np.array([[1 / 5**0.5] * 5, [1 / 3**0.5] * 3 + [0, 0], [1 / 5**0.5] * 5, [0] * 5]),
        rtol=1e-6,
    )
    # IDF, in four training rows: ln(4 / 3) of red, river and both, ln(4 / 2) of `the` and `the red`
    kept = counts.bags(2).toarray()
    assert [row.nonzero()[0].tolist() for row in kept] == [[3, 4], [0, 1], [3, 4], [], [0, 3]]
    assert kept[0, 3] == pytest.approx(1 / 2**0.5)


def test_reviews_of_training_events_stand_in_for_item_texts() -> None:
    """The titles of all items are read, also of those without training events."""
    books = reviewed_books()
    assert item_documents(books.train) == [[title] for title in books.items["title"]]
    assert user_documents(books.train) == [[text] for text in books.users["biography"]]
    events = [
        {"user_id": "a", "item_id": "x", "part": "train", "review_text": "sweet and loud"},
        {"user_id": "a", "item_id": "y", "part": "train", "review_text": "quiet"},
        {"user_id": "b", "item_id": "x", "part": "train", "review_text": "loud"},
        {"user_id": "b", "item_id": "y", "part": "test", "review_text": "a held-out opinion"},
    ]
    items = pl.DataFrame({"item_id": ["x", "y"], "title": ["", None]})
    dataset = Dataset.from_frame(pl.DataFrame(events), items)
    documents = dict(zip(dataset.items["item_id"], map(sorted, item_documents(dataset.train)), strict=True))
    assert documents == {"x": ["loud", "sweet and loud"], "y": ["quiet"]}
    assert user_documents(dataset.train) == [[], []]
