"""A small RSLLM on the taste dataset: its tokenizer and prompts, untrained and trained systems."""

from functools import cache
from typing import Any

import numpy as np

from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.corpora.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.config import SASRecConfig
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from tests.support.worlds import taste_dataset

TITLES = ["Red Lamp", "Blue Chair Of Wood", "", "Green Door", "red lamp ", "Old Oak Table With Drawers"]
QUICK = TrainConfig(epochs=1, batch_size=16, warmup_steps=5)


@cache
def tokenizer() -> ExtendedTokenizer:
    """Words of TITLES and of the prompts, and one soft token an item."""
    words = train_bpe(
        [*TITLES, "A user chose these items, the oldest first: and of these candidates: chose next:"]
    )
    return ExtendedTokenizer(words, len(words), 0, len(TITLES))


def writer(form: str = "unified", title_words: int = 8) -> PromptWriter:
    return PromptWriter(tokenizer(), TITLES, form, title_words)


def ragged(*lists: list[int]) -> Ragged:
    return Ragged.from_lists([np.array(numbers, dtype=np.int64) for numbers in lists])


def tokens_of(text: str) -> list[int]:
    """Tokens of a text that follows another."""
    return tokenizer().encode_texts([text])[0].tolist()


def small_dataset() -> Dataset:
    """80 readers, 60 books; the last event of each reader is for testing."""
    return taste_dataset(split="leave-last-out")


@cache
def sasrec() -> SASRec:
    model = SASRec(SASRecConfig(dropout=0.1))
    return model.fit_stage(small_dataset(), "pretrain", TrainConfig(epochs=3))


def untrained(**settings: Any) -> RSLLM:
    """An unfitted RSLLM whose sequential recommender is `sasrec()`."""
    model = RSLLM(RSLLMConfig(**{"dropout": 0.0, "title_words": 4, **settings}))
    model.trained_base = sasrec()
    return model


@cache
def trained(**settings: Any) -> RSLLM:
    """Both stages, one epoch each."""
    return untrained(**settings).fit(small_dataset(), QUICK)
