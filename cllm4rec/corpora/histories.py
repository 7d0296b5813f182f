"""Histories as prompts and as texts: the collaborative and the recommendation corpus, and prompts for scoring."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from cllm4rec.corpora.base import Corpus, EpochWeights, as_tensors
from cllm4rec.corpora.item_sampler import ItemSampler
from cllm4rec.corpora.padding import Batch, BatchGroup, join, pad_batches
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.randomness import mix, permutation, uniform

TOGETHER = (
    1 << 17
)  # tokens, about, of the batches put together at once, as most of the time goes by calls and not by tokens


@dataclass(frozen=True)
class HistoryCorpusOptions:
    """How histories become prompts and texts.

    Attributes:
        context: most tokens of an example; items are left out to keep to it, the words of the template never.
        order: "random" (shuffled anew each epoch) or "time".
        user_dropping: share of examples without their user token.
        mask_share: share of a history that is masked in finetuning (at least one item, and one stays).
        targets: what finetuning predicts: "unseen" (the masked items, the rest of the history left out of the softmax),
            "masked" (the masked items, softmax over all) or "all" (all items of the history).
        sampled: items that the softmax of a step is over, at most; 0: all.
        seed: of all of it.
    """

    context: int
    order: str = "random"
    user_dropping: float = 0.0
    mask_share: float = 0.2
    targets: str = "unseen"
    sampled: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Histories as they are learned from.

    Attributes:
        users: (B,) numbers.
        keep_user: (B,) whether the user token stands in the prompt.
        shown: items in the prompt.
        targets: items to predict.
        left_out: items left out of the softmax.
    """

    users: np.ndarray
    keep_user: np.ndarray
    shown: Ragged
    targets: Ragged
    left_out: Ragged

    def take(self, rows: np.ndarray) -> "Examples":
        """Some of them."""
        shown = self.shown.take(rows)
        others = (shown if one is self.shown else one.take(rows) for one in (self.targets, self.left_out))
        return Examples(self.users[rows], self.keep_user[rows], shown, *others)


class HistoryCorpus(Corpus):
    """What the collaborative and the recommendation corpus share: one example a user with training items."""

    name: ClassVar[str]  # of its template
    stream: ClassVar[int]  # keeps the draws of the two corpora apart

    def __init__(
        self, train: Interactions, tokenizer: ExtendedTokenizer, options: HistoryCorpusOptions
    ) -> None:
        self.train, self.tokenizer, self.options = train, tokenizer, options
        self.template = Template.compile(self.name, tokenizer)
        self.users = np.flatnonzero(np.diff(train.indptr) > 0)
        self.room = options.context - self.template.n_fixed  # items that fit
        if self.room < 2:
            raise ValueError(
                f"a context of {options.context} tokens has no room for two items: use a longer one"
            )
        self.lengths = self.template.n_fixed + np.minimum(np.diff(train.indptr)[self.users], self.room)
        self._weights = EpochWeights(self)
        self._drawn: tuple[int, Examples] | None = None
        self._sampler = (
            ItemSampler(train, options.sampled, options.seed, self.stream) if options.sampled else None
        )

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.options.seed, self.stream, epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        return next(self.batches([examples], epoch, [step]))

    def batches(self, parts: Sequence[np.ndarray], epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        weights, examples = self._weights(epoch), self._examples(epoch)
        lengths = self.lengths_in(epoch)
        group = np.cumsum([lengths[part].sum() for part in parts]) // TOGETHER
        for some in np.split(np.arange(len(parts)), np.flatnonzero(np.diff(group)) + 1) if len(parts) else ():
            own = [parts[i] for i in some]
            filled = self._batches(
                examples.take(np.concatenate(own)), BatchGroup(np.array([len(part) for part in own]))
            )
            weighed = weights[torch.cat([batch["ids"] for batch in filled])].split(
                [len(batch["ids"]) for batch in filled]
            )
            for step, batch, of_ids in zip([steps[i] for i in some], filled, weighed, strict=True):
                yield batch | {"weights": of_ids} | self._sample(batch["targets"], epoch, step)

    def _sample(self, targets: torch.Tensor, epoch: int, step: int) -> Batch:
        """Where the softmax is over a sample: `sample` (S,) its items, ascending, `sample_log_p` (S,) and `targets_log_p` (T,)
        the log of the probability that such a sample holds them and the targets."""
        if self._sampler is None:
            return {}
        sample, log_p = self._sampler.draw(epoch, step), self._sampler.log_inclusion
        return as_tensors(sample=sample, sample_log_p=log_p(sample), targets_log_p=log_p(targets.numpy()))

    def occurrences(self, epoch: int) -> np.ndarray:
        examples, n_users = self._examples(epoch), self.tokenizer.n_users
        counts = np.bincount(n_users + examples.shown.values, minlength=n_users + self.tokenizer.n_items)
        counts[examples.users] = examples.keep_user * self.template.count("user")
        return counts

    def _examples(self, epoch: int) -> Examples:
        """All examples as they are in an epoch; those of one epoch are kept."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = None  # what is no longer needed is not held beside what is drawn
            keep_user = (
                uniform(self.options.seed, self.stream, epoch, self.users, -1) >= self.options.user_dropping
            )
            self._drawn = (epoch, self._divide(self._ordered(epoch), keep_user, epoch))
        return self._drawn[1]

    def _ordered(self, epoch: int) -> Ragged:
        """The items of all examples in this epoch's order."""
        train, lengths, ordered = self.train, np.diff(self.train.indptr)[self.users], []
        if self.options.order != "random":
            return Ragged(train.items, lengths)
        group = np.cumsum(lengths) // TOGETHER
        for rows in (
            np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(group)) + 1) if len(lengths) else ()
        ):
            users, own = self.users[rows], lengths[rows]
            items = Ragged(train.items[train.indptr[users[0]] : train.indptr[users[-1] + 1]], own)
            keys = mix(self.options.seed, self.stream, epoch, np.repeat(users, own), items.positions)
            ordered.append(items.ordered(keys).values)
        return Ragged(np.concatenate([train.items[:0], *ordered]), lengths)

    def _fitting(self, items: Ragged) -> Ragged:
        """The items of each example that the context has room for."""
        if (items.lengths <= self.room).all():
            return items
        items = Ragged(
            items.values, items.lengths
        )  # what is found on the way is not kept with those that are
        return items.last(self.room) if self.options.order == "time" else items.first(self.room)

    def _prompts(self, examples: Examples, parts: BatchGroup) -> list[Batch]:
        """`prompt_batches` of examples."""
        tokens, pool = fill(self.template, self.tokenizer, examples.users, examples.shown, examples.keep_user)
        return prompt_batches(self.tokenizer, tokens, pool, parts)

    @abstractmethod
    def _divide(self, items: Ragged, keep_user: np.ndarray, epoch: int) -> Examples:
        """What becomes of the items of all examples."""

    @abstractmethod
    def _batches(self, examples: Examples, parts: BatchGroup) -> list[Batch]:
        """Examples as tensors of several batches."""


def fill(
    template: Template, tokenizer: ExtendedTokenizer, users: np.ndarray, items: Ragged, keep_user: np.ndarray
) -> tuple[Ragged, Ragged]:
    """A history template filled in for users (B,), some without their token, and their items.

    Returns:
        Tokens, and the places of the items among them.
    """
    tokens_of = {
        "user": Ragged.single(tokenizer.n_words + users, keep_user),
        "history": Ragged(tokenizer.n_words + tokenizer.n_users + items.values, items.lengths),
    }
    pieces = template.pieces
    tokens, begins = join(
        [
            tokens_of[piece] if isinstance(piece, str) else Ragged.constant(piece, len(users))
            for piece in pieces
        ]
    )
    return tokens, Ragged(items.indices_from(begins[template.history]), items.lengths)


def prompt_batches(
    tokenizer: ExtendedTokenizer, tokens: Ragged, pool: Ragged, parts: BatchGroup
) -> list[Batch]:
    """Prompts as `fill` gives them, those of several batches, padded.

    Returns:
        `tokens` and `mask` (B, L); `ids`; and where states may be read, as flat places: `pool` (P,) the items, with
        `pool_rows` (P,) their examples, and `query` (B,) the last token.
    """
    padded, masks, begin = pad_batches(tokens, parts)
    is_id = tokens.values >= tokenizer.n_words
    n_ids = np.add.reduceat(is_id, tokens.starts[parts.first], dtype=np.int64)
    n_pool = parts.counts(pool)
    columns = {
        "tokens": padded,
        "mask": masks,
        "ids": parts.split(tokens.values[is_id] - tokenizer.n_words, n_ids),
        "pool": parts.split(np.repeat(begin, pool.lengths) + pool.values, n_pool),
        "pool_rows": parts.split(parts.rows_of(pool), n_pool),
        "query": parts.split(begin + tokens.lengths - 1, parts.sizes),
    }
    return [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]


def prompt_batch(tokenizer: ExtendedTokenizer, tokens: Ragged, pool: Ragged) -> Batch:
    """`prompt_batches` of one batch."""
    return prompt_batches(tokenizer, tokens, pool, BatchGroup(np.array([len(tokens.lengths)])))[0]


class CollaborativeCorpus(HistoryCorpus):
    """`user_i has interacted with` + the user's training items; every item is predicted from what stands before it."""

    name = "collaborative"
    stream = 1

    def _divide(self, items: Ragged, keep_user: np.ndarray, epoch: int) -> Examples:
        shown = self._fitting(items)
        return Examples(self.users, keep_user, shown, shown, shown.none())

    def _batches(self, examples: Examples, parts: BatchGroup) -> list[Batch]:
        batches, targets = self._prompts(examples, parts), examples.targets
        n = parts.counts(targets)
        rows = parts.split(np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n), n)
        answers = zip(batches, rows, parts.split(targets.values, n), strict=True)
        return [
            batch | {"rows": own, "targets": items, "read": batch["pool"] - 1}
            for batch, own, items in answers
        ]


class RecommendationCorpus(HistoryCorpus):
    """`user_i has interacted with ..., user_i will interact with`: part of the items is shown, the head answers the rest.

    Further tensors: those of `prompt_batch`, and `shown` (P,) item numbers, with `shown_rows` (P,) their examples, where
    shown items are left out of the softmax (empty where not).
    """

    name = "recommend"
    stream = 2

    def _divide(self, items: Ragged, keep_user: np.ndarray, epoch: int) -> Examples:
        n_masked = self._n_masked(epoch)
        hidden = items.positions >= np.repeat(
            items.lengths - n_masked, items.lengths
        )  # in time order the last
        shown, masked = (
            Ragged(items.values[~hidden], items.lengths - n_masked),
            Ragged(items.values[hidden], n_masked),
        )
        keep_user = keep_user | (shown.lengths == 0)  # a user with one item learns from the user token alone
        targets = Ragged(items.values, items.lengths) if self.options.targets == "all" else masked
        left_out = (
            shown if self.options.targets == "unseen" else shown.none()
        )  # those that do not fit in, too
        return Examples(self.users, keep_user, self._fitting(shown), targets, left_out)

    def _batches(self, examples: Examples, parts: BatchGroup) -> list[Batch]:
        batches, targets, left_out = self._prompts(examples, parts), examples.targets, examples.left_out
        for one, names in ((targets, ("rows", "targets")), (left_out, ("shown_rows", "shown"))):
            for name, array in zip(names, (parts.rows_of(one), one.values), strict=True):
                for batch, own in zip(batches, parts.split(array, parts.counts(one)), strict=True):
                    batch[name] = own
        return batches

    def lengths_in(self, epoch: int) -> np.ndarray:
        n = np.diff(self.train.indptr)[self.users]
        return self.template.n_fixed + np.minimum(n - self._n_masked(epoch), self.room)

    def _n_masked(self, epoch: int) -> np.ndarray:
        """How many items of each example are masked."""
        n = np.diff(self.train.indptr)[self.users]
        n_masked = np.clip(np.rint(self.options.mask_share * n).astype(np.int64), 1, np.maximum(n - 1, 1))
        if self.options.order == "time":
            draw = uniform(self.options.seed, self.stream, epoch, self.users, -2)
            n_masked = np.where(n > 1, 1 + (draw * n_masked).astype(np.int64), n_masked)
        return n_masked
