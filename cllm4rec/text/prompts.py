"""Every template, in one table. A document is a prompt (IDs and words) and a main text (only items, or only words).

A main text of items stands in its template as {history}; a main text of words follows its template."""

import re
from dataclasses import dataclass

import numpy as np

from cllm4rec.text.tokenizer import ExtendedTokenizer

TEMPLATES = {  # wording of CLLM4Rec's released code; {user}, {item} and {history} are places for ID tokens
    "collaborative": "{user} has interacted with {history}",
    "review": "{user} writes the following review for {item}:",
    "item": "{item} has the following {field}:",
    "user": "{user} has the following {field}:",
    "recommend": "{user} has interacted with {history}, {user} will interact with",
}

Piece = str | np.ndarray  # the name of a place, or tokens of words


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

    @property
    def n_fixed(self) -> int:
        """Tokens of the template without a history."""
        return sum((piece != "history") if isinstance(piece, str) else len(piece) for piece in self.pieces)

    @property
    def history(self) -> int:
        """Which piece is the history."""
        return next(i for i, piece in enumerate(self.pieces) if isinstance(piece, str) and piece == "history")


def training_texts(item_texts: dict[str, list[str]], user_texts: dict[str, list[str]], reviews: list[str]) -> list[str]:
    """What a vocabulary may be learned from: templates, texts of items and users, reviews of training events."""
    fields = [*item_texts, *user_texts]
    templates = [re.sub(r"\{(user|item|history)\}", "", text) for text in TEMPLATES.values()]
    worded = [text.replace("{field}", field) for text in templates for field in fields or [""]]
    return worded + [t for texts in (*item_texts.values(), *user_texts.values()) for t in texts if t] + reviews
