"""Queries of held-out events, and ranks that favour no tied item."""

import numpy as np
import polars as pl
import pytest

from cllm4rec import Dataset
from experiments.wishes import Queries, Scores, standardised


def reviewed_dataset() -> Dataset:
    """Three users with three events each; the last one is test, the one before validation."""
    reviews = [
        *("the guitar is loud loud", "a warm guitar", "warm strings unheard"),
        *("warm and loud", "loud guitar", "the and is"),
        *("strings of steel", "steel guitar", "loud steel strings warm guitar leather"),
    ]
    rows = [(n // 3, f"i{n % 3 + n // 3}", n % 3, review) for n, review in enumerate(reviews)]
    names = ["user_id", "item_id", "timestamp", "review_text"]
    return Dataset.from_frame(pl.DataFrame(rows, schema=names, orient="row"), split="leave-last-out")


def test_queries_have_the_words_of_highest_tfidf_of_the_training_reviews() -> None:
    """`unheard`, `leather` and stop words are in no query, and a review of nothing else gives none."""
    dataset = reviewed_dataset()
    queries = Queries.of(dataset, "test")
    users = dataset.user_ids.names(queries.users).to_list()
    found = dict(zip(users, queries.texts, strict=True))
    assert found == {0: "strings warm", 2: "guitar steel strings warm loud"}  # two reviews have `loud`
    items = dict(zip(users, dataset.item_ids.names(queries.items), strict=True))
    assert items == {0: "i2", 2: "i4"}


def test_data_without_reviews_are_refused() -> None:
    frame = pl.DataFrame({"user_id": [0] * 3, "item_id": [1, 2, 3], "timestamp": [1, 2, 3]})
    with pytest.raises(SystemExit, match="the events have no reviews"):
        Queries.of(Dataset.from_frame(frame, split="leave-last-out"), "test")


def test_ranks_are_those_of_the_weighted_sum() -> None:
    history = np.array([[1.0, -np.inf, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    words = np.array([[0.0, 9.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    scores = Scores(history, words, np.zeros((2, 4)), np.array([3, 0]), np.array([3, 2, 1, 0]))
    gains = 1 / np.log2(np.arange(4) + 2.0)
    np.testing.assert_allclose(scores.ndcg(1.0), [gains[1], gains[3]])  # of equal ones item 3 is first
    np.testing.assert_allclose(scores.ndcg(words=1.0), [gains[0], gains[3]])  # item 1 is masked
    np.testing.assert_allclose(scores.ndcg(1.0, words=0.5), [gains[1], gains[3]])
    np.testing.assert_allclose(scores.ndcg(1.0, words=2.0), [gains[0], gains[3]])


def test_rows_are_standardised() -> None:
    rows = standardised(np.array([[1.0, 3.0], [5.0, 5.0]]))
    np.testing.assert_array_equal(rows, [[-1, 1], [0, 0]])
