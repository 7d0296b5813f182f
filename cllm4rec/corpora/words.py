"""Tokens of words within a document, by any Hugging Face tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cllm4rec.messages import library_errors

if TYPE_CHECKING:  # systems without a language model import no transformers
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class WordTokenizer:
    """Tokenises parts of a document, without special tokens.

    Attributes:
        text_tokenizer: the tokenizer of a language model.
        role: that of the model, in messages.
    """

    text_tokenizer: "PreTrainedTokenizerBase"
    role: str = "backbone"

    @cached_property
    def adds_space(self) -> bool:
        """Whether the tokenizer puts a space before the first word (SentencePiece does, GPT-2 does not)."""
        return self.plain("a a") == 2 * self.plain("a")

    def plain(self, text: str) -> list[int]:
        """Tokens of a whole text."""
        return self.tokens([text])[0]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of whole texts.

        Raises:
            ValueError: the tokenizer fails.
        """
        if not texts:
            return []
        with library_errors(f"the {self.role}'s tokenizer cannot read a text"):
            # Not verbose: long texts are read by windows, so that a warning of their length would mislead.
            encoded = self.text_tokenizer(list(texts), add_special_tokens=False, verbose=False)
        tokens: list[list[int]] = encoded["input_ids"]
        return tokens

    def following(self, texts: Sequence[str], spaced: bool) -> list[list[int]]:
        """Tokens of texts that follow other tokens; none for an empty text.

        Args:
            texts: spaces around them are removed.
            spaced: whether a space comes before them.
        """
        stripped = [text.strip() for text in texts]
        if self.adds_space and not spaced:
            before = len(self.plain("\n"))  # no word is joined to a line break
            return [tokens[before:] for tokens in self.tokens([f"\n{text}" for text in stripped])]
        prefix = " " if spaced and not self.adds_space else ""
        return self.tokens([prefix + text if text else "" for text in stripped])
