"""Small tokenizers, trained here or from the folder of shared data."""

import functools
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cllm4rec.corpora.tokenizer import ExtendedTokenizer, train_bpe

N_USERS, N_ITEMS = 10, 20
SENTENCES = [
    "a reader has interacted with a book and will interact with another",
    "she writes the following review for it: a good book has an end, and a bad one has a sequel",
    "it has the following title: a history of the river",
]


@functools.cache
def load_tokenizer(kind: str, folder: Path | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer trained here, or a real one of the shared folder."""
    if kind == "bpe":
        return train_bpe(SENTENCES * 3, 400)
    if kind == "bpe without the word a":
        return train_bpe([text.replace(" a ", " the ") for text in SENTENCES] * 3, 400)
    assert folder is not None
    return AutoTokenizer.from_pretrained(folder / "backbones" / kind, trust_remote_code=False)


def plain(tokenizer: ExtendedTokenizer, text: str) -> list[int]:
    """Tokens of a text at the beginning of a document."""
    return tokenizer.text_tokenizer(text, add_special_tokens=False)["input_ids"]


def running(tokenizer: ExtendedTokenizer, text: str) -> list[int]:
    """Tokens of a text that follows other text."""
    before = plain(tokenizer, "one")
    whole = plain(tokenizer, "one" + text)
    assert whole[: len(before)] == before
    return whole[len(before) :]
