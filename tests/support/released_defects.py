"""A trained CLLM4Rec, its corpora, and the items of their prompts."""

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from tests.support.systems import QUICK
from tests.support.worlds import taste_dataset


def small_dataset() -> Dataset:
    """50 readers, 40 books."""
    return taste_dataset(2, 50, 40, 12)


@cache
def trained_model() -> CLLM4Rec:
    """Both stages, two epochs each."""
    return CLLM4Rec().fit(small_dataset(), QUICK)


def recommendation_corpus(**options: Any) -> RecommendationCorpus:
    return RecommendationCorpus(
        small_dataset().train.interactions,
        trained_model().tokenizer,
        HistoryCorpusOptions(**{"context": 1024, **options}),
    )


def by_row(rows: Tensor, values: Tensor, n: int) -> list[list[int]]:
    return [values[rows == row].tolist() for row in range(n)]


def items_of(tokens: Tensor) -> list[int]:
    """Item numbers of the item tokens, in their order."""
    first = trained_model().tokenizer.n_text_tokens + small_dataset().n_users
    return (tokens[tokens >= first] - first).tolist()


def histories(corpus: RecommendationCorpus | CollaborativeCorpus, examples: np.ndarray) -> list[list[int]]:
    return [corpus.train.history(user).tolist() for user in corpus.users[examples]]
