"""Tokenizers that the tests of corpora share."""

import pytest

from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from tests.support import histories
from tests.support.tokenizers import N_ITEMS, N_USERS, load_tokenizer


@pytest.fixture(params=["bpe", "bpe without the word a", "stories260K", "gpt2-tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> ExtendedTokenizer:
    """Each of four tokenizers, with a few users and items."""
    folder = None if request.param.startswith("bpe") else request.getfixturevalue("shared")
    words = load_tokenizer(request.param, folder)
    return ExtendedTokenizer(words, len(words), N_USERS, N_ITEMS)


@pytest.fixture
def bpe() -> ExtendedTokenizer:
    """A byte-pair tokenizer with the users and items of `tests.support.histories`."""
    words = load_tokenizer("bpe")
    return ExtendedTokenizer(words, len(words), histories.N_USERS, histories.N_ITEMS)
