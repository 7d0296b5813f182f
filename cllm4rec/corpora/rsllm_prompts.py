"""Unified prompts (RSLLM): an item is written as its title's words followed by one soft token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cllm4rec.corpora.padding import assemble
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.ragged import Ragged

TOKENS_A_WORD = 8  # a title of long words, or of a script without spaces, is cut at so many tokens a word


@dataclass(frozen=True)
class Prompts:
    """Some prompts side by side, padded on the right. Flat places are row * L + column.

    Attributes:
        tokens, mask: (B, L); the soft token of item j is n_words + j.
        closes: (P,) flat place of the last token of each item of the histories, the state behind which has read that item
            and all before it, and nothing after it.
        words, word_items: (W,) flat places of the words of the histories' titles, and which of the P items each belongs to.
        query: (B,) flat place of the last token before the candidates and the question.
        answers: (T,) flat places of the answers' tokens.
    """

    tokens: np.ndarray
    mask: np.ndarray
    closes: np.ndarray
    words: np.ndarray
    word_items: np.ndarray
    query: np.ndarray
    answers: np.ndarray


class PromptWriter:
    """Writes items and prompts in one of three forms.

    unified: an item is its title's words and its soft token; text: the words and a comma; ids: the soft token alone. Every
    item so ends with a token of its own, at which the state of the history up to it is read.

    Attributes:
        titles: the words of each item's title, cut.
        answers: the same and the end token.
        written: the tokens of each item within a prompt.
    """

    def __init__(
        self, tokenizer: ExtendedTokenizer, titles: Sequence[str], form: str, title_words: int
    ) -> None:
        """titles: one an item, "" for none. title_words: most words of a title that are read."""
        self.tokenizer, self.form = tokenizer, form
        words = tokenizer.encode_texts([" ".join(title.split()[:title_words]) for title in titles])
        soft = tokenizer.n_words + tokenizer.n_users + np.arange(len(titles))
        comma = np.array(tokenizer.encode_words(",", after_id=True), dtype=np.int64)[-1:]
        close = Ragged.single(soft) if form != "text" else Ragged.constant(comma, len(titles))
        self.titles = Ragged.from_lists([own[: TOKENS_A_WORD * title_words] for own in words])
        self.answers = joined(self.titles, Ragged.constant(np.array([tokenizer.end]), len(titles)))
        self.written = close if form == "ids" else joined(self.titles, close)
        self.templates = {name: Template.compile(name, tokenizer) for name in ("next", "choose")}

    def newest(self, items: Ragged, room: np.ndarray) -> Ragged:
        """The newest items of each history (B) whose tokens fit into `room` (B,)."""
        lengths = self.written.lengths[items.values]
        total = np.cumsum(lengths)
        end = np.append(total, 0)[
            np.cumsum(items.lengths) - 1
        ]  # of each row; an empty row has no value to ask for it
        return items.where(end[items.rows] - total + lengths <= np.asarray(room)[items.rows])

    def fill(
        self,
        history: Ragged,
        context: int,
        candidates: Ragged | None = None,
        answers: Ragged | None = None,
        asked: bool = True,
    ) -> tuple[Prompts, Ragged]:
        """Prompts for histories (B), and what of the histories they hold.

        Old items are left out where the context is short of room; instruction, candidates, question and answer never are.

        Args:
            history: items, the oldest first.
            context: most tokens of a prompt.
            candidates: items (B) to choose from, in the order given.
            answers: tokens (B) that follow the question.
            asked: whether the prompt has a question; without one it ends with the history.

        Raises:
            ValueError: there is no room for what is never left out.
        """
        n = len(history.lengths)
        pieces = self.templates["next" if candidates is None else "choose"].pieces
        at = [isinstance(piece, str) and piece == "history" for piece in pieces].index(True)
        before, after = (
            [
                Ragged.constant(one, n) if isinstance(one, np.ndarray) else self.expand(candidates or history)
                for one in part
            ]
            for part in (pieces[:at], pieces[at + 1 :] if asked else ())
        )
        answer = Ragged.constant(np.empty(0, dtype=np.int64), n) if answers is None else answers
        used = np.sum([one.lengths for one in [*before, *after, answer]], axis=0)
        if used.max(initial=0) > context:
            raise ValueError(
                f"a context of {context} tokens has no room for the {used.max()} of a question, its candidates and the answer: "
                "name fewer candidates (--candidates) or read fewer words of their titles (--title-words)"
            )
        history = self.newest(history, context - used)
        tokens, mask, places = assemble([*before, self.expand(history), *after, answer])
        written = self.written.lengths[history.values]
        own, last = places[len(before)], np.cumsum(written) - 1
        is_word = np.ones(len(own), dtype=bool)
        is_word[last] = False
        query = np.sum([one.lengths for one in before], axis=0) - 1 + np.arange(n) * tokens.shape[1]
        query = query + np.bincount(history.rows, weights=written, minlength=n).astype(np.int64)
        items = np.repeat(np.arange(len(written)), written)
        return Prompts(tokens, mask, own[last], own[is_word], items[is_word], query, places[-1]), history

    def answers_of(self, items: np.ndarray) -> list[np.ndarray]:
        """The words that answer with each of some items, and the end token."""
        taken = self.answers.take(items)
        return np.split(taken.values, np.cumsum(taken.lengths)[:-1])

    def expand(self, items: Ragged) -> Ragged:
        """The tokens of rows of items, as rows of tokens."""
        tokens = self.written.take(items.values)
        lengths = np.bincount(items.rows, weights=tokens.lengths, minlength=len(items.lengths)).astype(
            np.int64
        )
        return Ragged(tokens.values, lengths)


def joined(first: Ragged, second: Ragged) -> Ragged:
    """Two lists of rows, row by row behind one another."""
    order = np.argsort(np.concatenate([first.rows, second.rows]), kind="stable")
    return Ragged(np.concatenate([first.values, second.values])[order], first.lengths + second.lengths)
