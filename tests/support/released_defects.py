"""A trained CLLM4Rec, and its prompts as lists of items."""

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions, RecommendationCorpus
from cllm4rec.training.config import TrainConfig

QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=5)


@cache
def small_dataset() -> Dataset:
    world = taste_world(2, n_users=50, n_items=40, n_events=12)
    return build_dataset(world.events, world.items)


@cache
def model() -> CLLM4Rec:
    """Both stages, quickly."""
    fitted = CLLM4Rec()
    for stage in fitted.stages:
        fitted.fit(small_dataset().train, small_dataset().validation, QUICK, stage)
    return fitted


def recommendation_corpus(**options: Any) -> RecommendationCorpus:
    return RecommendationCorpus(
        small_dataset().train.interactions, model().tokenizer, HistoryOptions(**{"context": 1024, **options})
    )


def by_row(rows: Tensor, values: Tensor, n: int) -> list[list[int]]:
    return [values[rows == row].tolist() for row in range(n)]


def items_of(tokens: Tensor) -> list[int]:
    """Item numbers of the item tokens, in their order."""
    first = model().tokenizer.n_words + small_dataset().n_users
    return (tokens[tokens >= first] - first).tolist()


def histories(corpus: RecommendationCorpus | CollaborativeCorpus, examples: np.ndarray) -> list[list[int]]:
    return [corpus.train.history(user).tolist() for user in corpus.users[examples]]
