"""The wording of all prompts.

A document is a prompt (ID tokens and text tokens) with items or a text. The items replace {history} in the
template of the prompt. The text follows the template.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cllm4rec.corpora.tokenizer import ExtendedTokenizer

# The first five have the wording of CLLM4Rec's released code, the others (RSLLM) that of this package.
TEMPLATES = {
    "collaborative": "{user} has interacted with {history}",
    "review": "{user} writes the following review for {item}:",
    "item": "{item} has the following {field}:",
    "user": "{user} has the following {field}:",
    "recommend": "{user} has interacted with {history}, {user} will interact with",
    "set": "{user} {history}",  # the same without words
    "next": "A user chose these items, the oldest first: {history} and chose next:",
    "choose": (
        "A user chose these items, the oldest first: {history} "
        "and of these candidates: {candidates} chose next:"
    ),
    "separator": ",",  # after each item of a prompt without soft tokens
}
OF_CLLM4REC = ("collaborative", "review", "item", "user", "recommend", "set")
OF_RSLLM = ("next", "choose")

Piece = str | np.ndarray  # the name of a placeholder, or tokens


@dataclass(frozen=True)
class Template:
    """A template cut into pieces: int64 arrays of tokens, and names of placeholders.

    It includes the tokens that begin a document, and those between prompt and main text. The latter come
    before a history that ends the template, which is then the main text, and otherwise at the end.
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def compile(cls, name: str, tokenizer: ExtendedTokenizer, field: str = "") -> "Template":
        """The template of that name; `field` fills its placeholder {field}."""
        pieces: list[Piece] = []
        for text in re.split(r"(\{\w+\})", TEMPLATES[name].replace("{field}", field)):
            if text.startswith("{"):
                pieces.append(text[1:-1])
            elif text.strip():
                tokens = tokenizer.encode_words(text, True) if pieces else tokenizer.encode_opening(text)
                pieces.append(np.array(tokens, dtype=np.int64))
        begin, between = tokenizer.document.begin, tokenizer.document.between
        if between:
            last = pieces[-1]
            ends_with_history = isinstance(last, str) and last == "history"
            pieces.insert(len(pieces) - ends_with_history, np.array(between, dtype=np.int64))
        if begin:
            pieces.insert(0, np.array(begin, dtype=np.int64))
        return cls(tuple(pieces))

    def count(self, placeholder: str) -> int:
        """Occurrences of a placeholder."""
        return sum(isinstance(piece, str) and piece == placeholder for piece in self.pieces)

    @property
    def n_fixed(self) -> int:
        """Tokens of the template without a history."""
        return sum((piece != "history") if isinstance(piece, str) else len(piece) for piece in self.pieces)

    @property
    def history(self) -> int:
        """Index of the piece that is the history."""
        return next(i for i, piece in enumerate(self.pieces) if isinstance(piece, str) and piece == "history")


def training_texts(
    names: Sequence[str], texts: dict[str, list[str]], reviews: Sequence[str] = ()
) -> list[str]:
    """The texts that a vocabulary is learned from.

    Args:
        names: of the templates.
        texts: of items and users, by field.
        reviews: of training events.
    """
    templates = [re.sub(r"\{(user|item|history|candidates)\}", "", TEMPLATES[name]) for name in names]
    filled = [text.replace("{field}", field) for text in templates for field in list(texts) or [""]]
    return [
        *filter(str.strip, filled),
        *(text for column in texts.values() for text in column if text),
        *reviews,
    ]
