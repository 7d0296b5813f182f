"""Texts about users and items: reviews, titles, descriptions, categories, biographies."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cllm4rec.corpora.base import Batch, Corpus, EpochWeights, as_tensor
from cllm4rec.corpora.histories import HistoryCorpusOptions
from cllm4rec.corpora.padding import assemble
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.audit import learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged, ranges
from cllm4rec.data.randomness import permutation, uniform

WINDOW_TOKENS = 128  # most tokens of a text that are read at a time, as in CLLM4Rec's released code
USER, ITEM = -1, -2  # placeholders among the tokens of a prompt

# template, field, user or -1, item or -1, tokens of the text
Document = tuple[str, str, int, int, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ContentBatch(Batch):
    """Documents in which each token of the text is predicted from the tokens before it.

    Attributes:
        tokens: int64 (B, L): text token w -> w, user i -> n_text_tokens + i,
            item j -> n_text_tokens + n_users + j.
        mask: bool (B, L), True at tokens.
        ids: int64 (M,), IDs in the prompts, with repeats: user i -> i, item j -> n_users + j.
        id_weights: float32 (M,), 1 / occurrences of the ID in this epoch.
        state_index: int64 (T,), flat index of the token before each target, whose state predicts it.
        target_tokens: int64 (T,), the tokens of the texts and their end tokens.

    Example: the title `the river` (30 31) of item 4 and the biography `a reader` (32 33) of user 1, with I
    users, the end token 0 and prompts of four tokens (`has the following title:` 40 41 42 43) give

        tokens        [[i4, 40, 41, 42, 43, 30, 31, 0], [u1, 40, 41, 44, 43, 32, 33, 0]]
        ids           [I + 4, 1]
        state_index   [4, 5, 6, 12, 13, 14]
        target_tokens [30, 31, 0, 32, 33, 0]
    """

    tokens: Tensor
    ids: Tensor
    id_weights: Tensor
    state_index: Tensor
    target_tokens: Tensor

    @property
    def n_targets(self) -> int:
        return len(self.target_tokens)


def content_documents(train: Dataset, tokenizer: ExtendedTokenizer) -> list[Document]:
    """The documents of the training events and of the texts of users and items; empty texts give none."""
    documents: list[Document] = []
    events = train.interactions
    learns_from("reviews and texts", events)
    if events.reviews is not None:
        tokens = tokenizer.encode_main_texts(events.reviews.to_list())
        reviews = zip(events.users.tolist(), events.items.tolist(), tokens, strict=True)
        documents += [("review", "", user, item, text) for user, item, text in reviews if len(text)]
    for field, texts in train.item_texts.items():
        tokens = tokenizer.encode_main_texts(texts)
        documents += [("item", field, -1, item, text) for item, text in enumerate(tokens) if len(text)]
    for field, texts in train.user_texts.items():
        tokens = tokenizer.encode_main_texts(texts)
        documents += [("user", field, user, -1, text) for user, text in enumerate(tokens) if len(text)]
    return documents


class ContentCorpus(Corpus):
    """Documents about users and items: a prompt with their IDs, then a text.

    A text is too long if it has more than WINDOW_TOKENS tokens, or more than fit in the context. It is cut
    to a random window each time it is read.

    Args:
        documents: (template, field, user number or -1, item number or -1, tokens) of each document.
        tokenizer: numbers the tokens.
        options: of the context, user dropping and seed.
        tokens_per_pass: most tokens of a pass; a pass resumes where the previous one stopped.

    Raises:
        ValueError: the context is too short for a prompt and two words.
    """

    stream = 3

    def __init__(
        self,
        documents: list[Document],
        tokenizer: ExtendedTokenizer,
        options: HistoryCorpusOptions,
        tokens_per_pass: int,
    ) -> None:
        self.tokenizer, self.options, self.tokens_per_pass = tokenizer, options, tokens_per_pass
        kinds = sorted({(template, field) for template, field, *_ in documents})
        self.templates = [Template.compile(template, tokenizer, field) for template, field in kinds]
        numbers = {kind: number for number, kind in enumerate(kinds)}
        # (n_documents,): index into the templates, user or -1, item or -1
        self.kinds = np.array([numbers[template, field] for template, field, *_ in documents], dtype=np.int64)
        self.users = np.array([user for _, _, user, _, _ in documents], dtype=np.int64)
        self.items = np.array([item for _, _, _, item, _ in documents], dtype=np.int64)
        self.texts = Ragged.from_lists(
            [np.append(tokens, tokenizer.document.end) for *_, tokens in documents]
        )
        self.prompts = Ragged.from_lists([_prompt(template) for template in self.templates])
        prompt_lengths = self.prompts.lengths[self.kinds]
        room = options.context - prompt_lengths
        if (room < 2).any():
            raise ValueError(
                f"a context of {options.context} tokens has no room for two words: use a longer one"
            )
        self.windows = np.minimum(
            self.texts.lengths, np.minimum(room, WINDOW_TOKENS)
        )  # tokens read of each text
        self.lengths = self.windows + prompt_lengths
        self._weights = EpochWeights(self)

    def selection(self, epoch: int) -> np.ndarray:
        """The documents of a pass, int64 (n,).

        Concatenate endlessly many shuffled copies of the corpus: pass e reads the documents that begin at its
        tokens [e, e + 1) * tokens_per_pass.
        """
        total = int(self.lengths.sum())
        if not total or not self.tokens_per_pass:
            return np.empty(0, dtype=np.int64)
        if self.tokens_per_pass >= total:
            return permutation(len(self.lengths), self.options.seed, self.stream, epoch)
        begin, end = epoch * self.tokens_per_pass, (epoch + 1) * self.tokens_per_pass
        chosen = []
        for copy in range(begin // total, (end - 1) // total + 1):
            order = permutation(len(self.lengths), self.options.seed, self.stream, copy)
            starts = copy * total + np.cumsum(self.lengths[order]) - self.lengths[order]
            chosen.append(order[(starts >= begin) & (starts < end)])
        return np.concatenate(chosen)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> ContentBatch:
        n_text_tokens, texts = self.tokenizer.n_text_tokens, self._windows(examples, epoch)
        tokens, mask, (_, text_index) = assemble([self._prompts(examples, epoch), texts])  # (B, L)
        ids = as_tensor(tokens[mask & (tokens >= n_text_tokens)] - n_text_tokens)
        return ContentBatch(
            tokens=as_tensor(tokens),
            mask=as_tensor(mask),
            ids=ids,
            id_weights=self._weights(epoch)[ids],
            state_index=as_tensor(text_index - 1),
            target_tokens=as_tensor(texts.values),
        )

    def occurrences(self, epoch: int) -> np.ndarray:
        chosen, n_users, n_items = self.selection(epoch), self.tokenizer.n_users, self.tokenizer.n_items
        kinds, counts = self.kinds[chosen], np.zeros(n_users + n_items, dtype=np.int64)
        user_tokens, item_tokens = (
            np.array([template.count(name) for template in self.templates])[kinds]
            for name in ("user", "item")
        )
        np.add.at(counts, self.users[chosen], user_tokens * self._keep_user(chosen, epoch))
        np.add.at(counts, n_users + self.items[chosen], item_tokens)
        return counts

    def _windows(self, examples: np.ndarray, epoch: int) -> Ragged:
        """The window of each text that an epoch reads (B rows)."""
        lengths = self.windows[examples]
        n_starts = self.texts.lengths[examples] - lengths + 1
        draw = uniform(self.options.seed, self.stream, epoch, examples, -2)
        starts = self.texts.starts[examples] + (draw * n_starts).astype(np.int64)
        return Ragged(self.texts.values[ranges(starts, lengths)], lengths)

    def _keep_user(self, examples: np.ndarray, epoch: int) -> np.ndarray:
        """Whether each document has its user token, bool (B,)."""
        draw = uniform(self.options.seed, self.stream, epoch, examples, -1)
        return (self.users[examples] >= 0) & (draw >= self.options.user_dropping)

    def _prompts(self, examples: np.ndarray, epoch: int) -> Ragged:
        """The prompts of documents (B rows)."""
        prompts = self.prompts.take(self.kinds[examples])
        tokens, rows = prompts.values, prompts.rows
        is_user, is_item = tokens == USER, tokens == ITEM
        first_user, first_item = (
            self.tokenizer.n_text_tokens,
            self.tokenizer.n_text_tokens + self.tokenizer.n_users,
        )
        tokens[is_user] = first_user + self.users[examples][rows[is_user]]
        tokens[is_item] = first_item + self.items[examples][rows[is_item]]
        return prompts.filter(~is_user | self._keep_user(examples, epoch)[rows])


def _prompt(template: Template) -> np.ndarray:
    """Tokens of a template, with placeholders for user and item."""
    placeholders = {"user": np.array([USER]), "item": np.array([ITEM])}
    pieces = [placeholders[piece] if isinstance(piece, str) else piece for piece in template.pieces]
    return np.concatenate(pieces)
