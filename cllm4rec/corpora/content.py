"""Texts about users and items: reviews, titles, descriptions, categories, biographies."""

import numpy as np
import torch

from cllm4rec.corpora.base import Corpus, EpochWeights, as_tensors
from cllm4rec.corpora.histories import HistoryCorpusOptions
from cllm4rec.corpora.padding import Batch, assemble
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.randomness import permutation, uniform

WINDOW = 128  # most words of a text that are read at a time, as the author of CLLM4Rec's code suggests

Document = tuple[str, str, int, int, np.ndarray]  # template, field, user or -1, item or -1, words


def content_documents(train: Dataset, tokenizer: ExtendedTokenizer) -> list[Document]:
    """All documents that the training events and the texts of users and items give; an empty text gives none."""
    documents: list[Document] = []
    events = train.interactions
    if events.reviews is not None:
        words = tokenizer.encode_texts(events.reviews.to_list())
        pairs = zip(events.users.tolist(), events.items.tolist(), words, strict=True)
        documents += [("review", "", user, item, text) for user, item, text in pairs if len(text)]
    for field, texts in train.item_texts.items():
        words = tokenizer.encode_texts(texts)
        documents += [("item", field, -1, item, text) for item, text in enumerate(words) if len(text)]
    for field, texts in train.user_texts.items():
        words = tokenizer.encode_texts(texts)
        documents += [("user", field, user, -1, text) for user, text in enumerate(words) if len(text)]
    return documents


class ContentCorpus(Corpus):
    """Documents about users and items: a prompt with their IDs, then words, each predicted from what stands before it.

    A text longer than WINDOW words, or than the context has room for, is cut to a random window each time it is read.

    Args:
        documents: (template, field, user number or -1, item number or -1, words) of each document.
        tokens_per_pass: most tokens a pass reads; a pass goes on where the one before it stopped.
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
        self.kinds = sorted({(template, field) for template, field, *_ in documents})
        self.templates = [Template.compile(template, tokenizer, field) for template, field in self.kinds]
        self.pieces = [one.pieces for one in self.templates]
        self.kind = np.array([self.kinds.index((t, f)) for t, f, *_ in documents], dtype=np.int64)
        self.users = np.array([user for _, _, user, _, _ in documents], dtype=np.int64)
        self.items = np.array([item for _, _, _, item, _ in documents], dtype=np.int64)
        self.texts = Ragged.from_lists([np.append(words, tokenizer.end) for *_, words in documents])
        self._begin = self.texts.starts
        prompt = np.array(
            [sum(len(p) if isinstance(p, np.ndarray) else 1 for p in ps) for ps in self.pieces] or [0]
        )
        room = options.context - prompt[self.kind] if len(documents) else np.zeros(0, dtype=np.int64)
        if (room < 2).any():
            raise ValueError(
                f"a context of {options.context} tokens has no room for two words: use a longer one"
            )
        self.kept = np.minimum(self.texts.lengths, np.minimum(room, WINDOW))  # words read of each document
        self.lengths = self.kept + prompt[self.kind] if len(documents) else self.kept
        self._weights = EpochWeights(self)

    def selection(self, epoch: int) -> np.ndarray:
        """The documents of pass number `epoch`: the stretch [epoch, epoch + 1) * tokens_per_pass of an endless row of
        shuffled copies of the corpus."""
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

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        kinds = self.kind[examples]
        users, items = self.users[examples], self.items[examples]
        key = (self.options.seed, self.stream, epoch, examples)
        keep_user = self._keep_user(examples, epoch)
        tokenizer, parts = self.tokenizer, []
        for place in range(max(len(pieces) for pieces in self.pieces)):
            parts.append(self._piece(place, kinds, users, items, keep_user))
        spare = self.texts.lengths[examples] - self.kept[examples]
        window = self._begin[examples] + (uniform(*key, -2) * (spare + 1)).astype(np.int64)
        kept = self.kept[examples]
        texts = Ragged(
            self.texts.values[np.arange(kept.sum()) + np.repeat(window - np.cumsum(kept) + kept, kept)], kept
        )
        tokens, mask, places = assemble([*parts, texts])
        ids = torch.from_numpy(tokens[mask & (tokens >= tokenizer.n_words)] - tokenizer.n_words)
        batch = as_tensors(tokens=tokens, mask=mask) | {"ids": ids, "weights": self._weights(epoch)[ids]}
        return batch | as_tensors(
            read=places[-1] - 1, rows=np.arange(len(texts.values)), targets=texts.values
        )

    def _keep_user(self, examples: np.ndarray, epoch: int) -> np.ndarray:
        """Whether each document has its user token."""
        draw = uniform(self.options.seed, self.stream, epoch, examples, -1)
        return (self.users[examples] >= 0) & (draw >= self.options.user_dropping)

    def occurrences(self, epoch: int) -> np.ndarray:
        chosen, n_users, n_items = self.selection(epoch), self.tokenizer.n_users, self.tokenizer.n_items
        counts = np.zeros(n_users + n_items, dtype=np.int64)
        tokens = {
            name: np.array([one.count(name) for one in self.templates])[self.kind[chosen]]
            for name in ("user", "item")
        }
        tokens["user"] = tokens["user"] * self._keep_user(chosen, epoch)
        np.add.at(counts, self.users[chosen], tokens["user"])
        np.add.at(counts, n_users + self.items[chosen], tokens["item"])
        return counts

    def _piece(
        self, place: int, kinds: np.ndarray, users: np.ndarray, items: np.ndarray, keep: np.ndarray
    ) -> Ragged:
        """Piece number `place` of each document's own template (none where its template is shorter)."""
        pieces = [ps[place] if place < len(ps) else np.empty(0, dtype=np.int64) for ps in self.pieces]
        one = {
            "user": self.tokenizer.n_words + users,
            "item": self.tokenizer.n_words + self.tokenizer.n_users + items,
        }
        values, lengths = np.zeros((len(kinds), 1), dtype=np.int64), np.zeros(len(kinds), dtype=np.int64)
        for kind, piece in enumerate(pieces):
            at = kinds == kind
            if isinstance(piece, str):
                values[at, 0] = one[piece][at]
                lengths[at] = keep[at] if piece == "user" else 1
                continue
            if len(piece) > values.shape[1]:
                values = np.pad(values, ((0, 0), (0, len(piece) - values.shape[1])))
            values[at, : len(piece)] = piece
            lengths[at] = len(piece)
        return Ragged(values[np.arange(values.shape[1])[None, :] < lengths[:, None]], lengths)
