"""Every template, in one table. A document is a prompt (IDs and words) and a main text (only items, or only words).

A main text of items stands in its template as {history}; a main text of words follows its template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cllm4rec.corpora.tokenizer import ExtendedTokenizer

TEMPLATES = {  # wording of CLLM4Rec's released code; {user}, {item}, {history}, {candidates} are places for IDs or items
    "collaborative": "{user} has interacted with {history}",
    "review": "{user} writes the following review for {item}:",
    "item": "{item} has the following {field}:",
    "user": "{user} has the following {field}:",
    "recommend": "{user} has interacted with {history}, {user} will interact with",
    "next": "A user chose these items, the oldest first: {history} and chose next:",  # RSLLM, wording of this package
    "choose": "A user chose these items, the oldest first: {history} and of these candidates: {candidates} chose next:",
}

Piece = str | np.ndarray  # the name of a place, or tokens of words


OF_CLLM4REC = ("collaborative", "review", "item", "user", "recommend")
OF_RSLLM = ("next", "choose")


@dataclass(frozen=True)
class Template:
    """A template cut into pieces: int64 arrays of word tokens, tokenised once, and names of places."""

    pieces: tuple[Piece, ...]

    @classmethod
    def compile(cls, name: str, tokenizer: ExtendedTokenizer, field: str = "") -> "Template":
        """The template of that name; `field` fills its place of that name."""
        pieces: list[Piece] = []
        for part in re.split(r"(\{\w+\})", TEMPLATES[name].replace("{field}", field)):
            if part.startswith("{"):
                pieces.append(part[1:-1])
            elif part.strip():
                pieces.append(np.array(tokenizer.encode_words(part, after_id=bool(pieces)), dtype=np.int64))
        return cls(tuple(pieces))

    def count(self, place: str) -> int:
        """How often a place of that name stands in the template."""
        return sum(isinstance(piece, str) and piece == place for piece in self.pieces)

    @property
    def n_fixed(self) -> int:
        """Tokens of the template without a history."""
        return sum((piece != "history") if isinstance(piece, str) else len(piece) for piece in self.pieces)

    @property
    def history(self) -> int:
        """Which piece is the history."""
        return next(i for i, piece in enumerate(self.pieces) if isinstance(piece, str) and piece == "history")


def training_texts(
    names: Sequence[str], texts: dict[str, list[str]], reviews: Sequence[str] = ()
) -> list[str]:
    """What a vocabulary may be learned from: templates, texts of items and users by field, reviews of training events."""
    templates = [re.sub(r"\{(user|item|history|candidates)\}", "", TEMPLATES[name]) for name in names]
    worded = [text.replace("{field}", field) for text in templates for field in list(texts) or [""]]
    return [*worded, *(text for column in texts.values() for text in column if text), *reviews]
