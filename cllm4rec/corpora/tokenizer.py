"""The tokens of any Hugging Face tokenizer, and one atomic token for each user and each item.

Token numbers (CLLM4Rec's released code): text token w -> w, user i -> n_text_tokens + i, item j ->
n_text_tokens + n_users + j.
IDs never enter the fast tokenizer: corpora number them by arithmetic. `ExtendedTokenizer.encode` is for IDs
written as text.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cllm4rec.corpora.documents import DocumentTokens, document_tokens
from cllm4rec.corpora.words import WordTokenizer

END = "<|end|>"
_ID = re.compile(r"\s?\b(user|item)_(\d+)\b")


def train_bpe(texts: Iterable[str], vocabulary: int = 4096) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` tokens.

    It can encode every text; token 0 is the end token.

    Args:
        texts: to learn from; of the training set alone, against leakage.
        vocabulary: most tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def without_unused_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> PreTrainedTokenizerFast:
    """A tokenizer of `train_bpe` without the tokens that some texts do not need.

    These texts are encoded as before. Tokens keep their numbers; unused ones are renamed after them.

    Args:
        tokenizer: to copy.
        texts: whose tokens stay.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    content = json.loads(backend.to_str())
    needed = {token for text in texts for token in backend.encode(text).tokens}
    merges = []
    for left, right in reversed(content["model"]["merges"]):
        if left + right in needed:
            needed |= {left, right}
            merges.append([left, right])
    content["model"]["merges"] = merges[::-1]
    content["model"]["vocab"] = {
        token if token in needed or len(token) == 1 or token == END else f"<|unused {number}|>": number
        for token, number in content["model"]["vocab"].items()
    }
    copied = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=copied, eos_token=END)


@dataclass(frozen=True)
class ExtendedTokenizer:
    """A tokenizer extended by n_users + n_items tokens.

    Attributes:
        text_tokenizer: the tokenizer of the backbone.
        n_text_tokens: rows of the backbone's token embeddings (at least the tokenizer's size).
        n_users, n_items: numbers of ID tokens.
        chat: whether documents follow the chat template, if the tokenizer has one.
        eos: EOS tokens that the backbone's configuration names.
    """

    text_tokenizer: PreTrainedTokenizerBase
    n_text_tokens: int
    n_users: int
    n_items: int
    chat: bool = True
    eos: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.n_text_tokens + self.n_users + self.n_items

    def user(self, number: int) -> int:
        """Token of a user."""
        return self._checked("user", number, self.n_users) + self.n_text_tokens

    def item(self, number: int) -> int:
        """Token of an item."""
        return self._checked("item", number, self.n_items) + self.n_text_tokens + self.n_users

    @cached_property
    def document(self) -> DocumentTokens:
        """How a document begins and ends.

        Raises:
            ValueError: as `document_tokens` does.
        """
        return document_tokens(self.text_tokenizer, self.chat, self.eos)

    @cached_property
    def _words(self) -> WordTokenizer:
        return WordTokenizer(self.text_tokenizer)

    def encode_words(self, text: str, after_id: bool = False) -> list[int]:
        """Tokens of a text without IDs.

        Args:
            text: a leading space says that a space belongs between an ID and the text.
            after_id: whether an ID token comes before it.
        """
        spaced, text = text[:1].isspace(), text.strip()
        plain = self._words.plain
        if not text or not after_id:
            return plain(text)
        if spaced or not self._words.adds_space:
            return self._words.following([text], spaced)[0]
        return plain("a" + text)[len(plain("a")) :]

    def encode_opening(self, text: str) -> list[int]:
        """Tokens of the words with which a prompt begins, after `document.begin`."""
        return self._words.following([text], self.document.prompt_spaced)[0]

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of texts that follow a prompt and a space, int64 arrays; empty ones for empty texts."""
        return [np.array(ids, dtype=np.int64) for ids in self._words.following(texts, spaced=True)]

    def encode_main_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of main texts, as `encode_texts` gives them, with or without a space before them."""
        spaced = self.document.text_spaced
        return [np.array(ids, dtype=np.int64) for ids in self._words.following(texts, spaced)]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which `user_3` and `item_7` are single tokens, without stray space tokens."""
        tokens: list[int] = []
        position = 0
        for match in _ID.finditer(text):
            tokens += self.encode_words(text[position : match.start()], after_id=position > 0)
            tokens.append(self.user(int(match[2])) if match[1] == "user" else self.item(int(match[2])))
            position = match.end()
        return tokens + self.encode_words(text[position:], after_id=position > 0)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens, IDs as user_3 and item_7, with single spaces around IDs."""
        texts: list[str] = []
        text_tokens: list[int] = []  # tokens since the last ID
        for token in [*tokens, None]:
            if token is not None and token < self.n_text_tokens:
                text_tokens.append(int(token))
                continue
            if text_tokens:
                texts.append(str(self.text_tokenizer.decode(text_tokens)).strip())
                text_tokens = []
            if token is not None:
                number = self._checked("token", int(token), len(self)) - self.n_text_tokens
                texts.append(f"user_{number}" if number < self.n_users else f"item_{number - self.n_users}")
        return " ".join(texts)

    def _checked(self, kind: str, number: int, n: int) -> int:
        if not 0 <= number < n:
            raise ValueError(f"{kind} number {number} is out of range: there are {n} {kind}s")
        return number
