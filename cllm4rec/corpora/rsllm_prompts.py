"""Unified prompts (RSLLM): an item is written as its title's tokens followed by one soft token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cllm4rec.corpora.padding import assemble
from cllm4rec.corpora.prompts import TEMPLATES, Piece, Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.ragged import Ragged, concatenate_rows

TOKENS_A_WORD = 8  # maximum tokens per word of a title, on average: some scripts have no spaces between words


@dataclass(frozen=True)
class Prompts:
    """Prompts, padded on the right. Flat indices are row * L + column.

    Attributes:
        tokens: int64 (B, L); the soft token of item j is n_text_tokens + j.
        mask: bool (B, L), True at tokens.
        history_index: int64 (P,), flat index of each history item's last token; its hidden state has seen
            this item and everything before it.
        title_index: int64 (W,), flat index of each title token of the histories.
        title_rows: int64 (W,), the history item (of P) that each title token belongs to, ascending.
        query_index: int64 (B,), flat index of the last token before the candidates and the question.
        answer_index: int64 (T,), flat index of each answer token.
    """

    tokens: np.ndarray
    mask: np.ndarray
    history_index: np.ndarray
    title_index: np.ndarray
    title_rows: np.ndarray
    query_index: np.ndarray
    answer_index: np.ndarray


class PromptWriter:
    """Writes items and prompts in one of three forms.

    unified: an item is its title's tokens and its soft token
    text: the title's tokens and a comma
    ids: the soft token alone

    So each item ends with one token that is not of its title. There the state of the history is read.

    Attributes:
        titles: tokens of each item's title, cut (n_items rows).
        answers: the same as a main text, with its end tokens (n_items rows).
        item_tokens: tokens of each item within a prompt (n_items rows).
    """

    def __init__(
        self, tokenizer: ExtendedTokenizer, titles: Sequence[str], form: str, title_words: int
    ) -> None:
        """
        Args:
            tokenizer: has a soft token for each item.
            titles: of all items, "" for none.
            form: "unified", "text" or "ids".
            title_words: most words of a title that are read.
        """
        self.tokenizer, self.form, n_items = tokenizer, form, len(titles)
        cut = [" ".join(title.split()[:title_words]) for title in titles]
        self.titles = _cut(tokenizer.encode_texts(cut), title_words)
        answers = self.titles
        if not tokenizer.document.text_spaced:
            answers = _cut(tokenizer.encode_main_texts(cut), title_words)
        end = Ragged.repeated(np.array(tokenizer.document.end), n_items)
        self.answers, _ = concatenate_rows([answers, end])
        if form == "text":
            separator = np.array(
                tokenizer.encode_words(TEMPLATES["separator"], after_id=True), dtype=np.int64
            )
            last = Ragged.repeated(separator[-1:], n_items)
        else:
            last = Ragged.singles(tokenizer.n_text_tokens + tokenizer.n_users + np.arange(n_items))
        self.item_tokens = last if form == "ids" else concatenate_rows([self.titles, last])[0]
        self.templates = {name: Template.compile(name, tokenizer) for name in ("next", "choose")}

    def n_beginning(self, candidates: bool) -> int:
        """Tokens with which all prompts begin, with or without candidates."""
        length = 0
        for piece in self.templates["choose" if candidates else "next"].pieces:
            if isinstance(piece, str):  # the first placeholder
                break
            length += len(piece)
        return length

    def newest(self, items: Ragged, room: np.ndarray) -> Ragged:
        """The newest items of each history (B rows) whose tokens fit into `room` (B,)."""
        lengths = self.item_tokens.lengths[items.values]
        ends = np.cumsum(lengths)  # tokens up to each item, of all histories
        # Of each row's last item. Leading empty rows, which have none, read the 0 appended.
        row_ends = np.append(ends, 0)[np.cumsum(items.lengths) - 1]
        tokens_from_item = row_ends[items.rows] - ends + lengths  # this item and the later ones of its row
        return items.filter(tokens_from_item <= np.asarray(room)[items.rows])

    def fill(
        self,
        history: Ragged,
        context: int,
        candidates: Ragged | None = None,
        answers: Ragged | None = None,
        asked: bool = True,
    ) -> tuple[Prompts, Ragged]:
        """Write prompts for histories.

        Where the context is short, the oldest items are left out. Instruction, candidates, question and
        answer never are.

        Args:
            history: items, oldest first (B rows).
            context: most tokens of a prompt.
            candidates: items to choose from, in the order given (B rows).
            answers: tokens that follow the question (B rows).
            asked: whether the prompt has a question; without one it ends with the history.

        Returns:
            The prompts, and the items of the histories that they hold (B rows).

        Raises:
            ValueError: the context is too short for what is never left out.
        """
        n = len(history.lengths)
        template = self.templates["next" if candidates is None else "choose"]
        before = self._written(template.pieces[: template.history], n, candidates)
        after = self._written(template.pieces[template.history + 1 :], n, candidates) if asked else []
        if answers is None:
            answers = Ragged.repeated(np.empty(0, dtype=np.int64), n)
        n_before = np.sum([piece.lengths for piece in before], axis=0)  # (B,)
        n_fixed = n_before + np.sum([piece.lengths for piece in [*after, answers]], axis=0)  # (B,)
        if n_fixed.max(initial=0) > context:
            raise ValueError(
                f"a context of {context} tokens has no room for the {n_fixed.max()} of a question, its "
                "candidates and the answer: name fewer `candidates` or read fewer `title_words`"
            )
        history = self.newest(history, context - n_fixed)
        history_tokens = self.expand(history)
        tokens, mask, indices = assemble([*before, history_tokens, *after, answers])  # (B, L)
        history_token_index = indices[len(before)]  # of all tokens of the histories
        n_tokens = self.item_tokens.lengths[history.values]  # (P,) of each history item
        last = np.cumsum(n_tokens) - 1  # (P,) each item's last token, among those of the histories
        in_title = np.ones(len(history_token_index), dtype=bool)
        in_title[last] = False
        prompts = Prompts(
            tokens=tokens,
            mask=mask,
            history_index=history_token_index[last],
            title_index=history_token_index[in_title],
            title_rows=np.repeat(np.arange(len(n_tokens)), n_tokens)[in_title],
            query_index=np.arange(n) * tokens.shape[1] + n_before + history_tokens.lengths - 1,
            answer_index=indices[-1],
        )
        return prompts, history

    def answers_of(self, items: np.ndarray) -> list[np.ndarray]:
        """The title's tokens and the end tokens of each item."""
        answers = self.answers.take(items)
        return np.split(answers.values, np.cumsum(answers.lengths)[:-1])

    def expand(self, items: Ragged) -> Ragged:
        """The tokens of items (B rows) as they are in a prompt (B rows)."""
        tokens = self.item_tokens.take(items.values)
        lengths = np.bincount(items.rows, weights=tokens.lengths, minlength=len(items.lengths))
        return Ragged(tokens.values, lengths.astype(np.int64))

    def _written(self, pieces: Sequence[Piece], n: int, candidates: Ragged | None) -> list[Ragged]:
        """Pieces of a template as tokens (n rows each); a placeholder is that of the candidates."""
        written = []
        for piece in pieces:
            if isinstance(piece, str):
                assert candidates is not None, f"no items for placeholder {piece}"
                written.append(self.expand(candidates))
            else:
                written.append(Ragged.repeated(piece, n))
        return written


def _cut(titles: list[np.ndarray], title_words: int) -> Ragged:
    """Tokens of titles, each cut at the most that `title_words` words have."""
    return Ragged.from_lists([tokens[: TOKENS_A_WORD * title_words] for tokens in titles])
