"""Histories as prompts and as texts: the collaborative and the recommendation corpus, and prompts for scoring."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix, permutation, uniform
from cllm4rec.text.corpora import Corpus, EpochWeights, as_tensors, id_numbers
from cllm4rec.text.prompts import Template
from cllm4rec.text.ragged import Batch, Parts, Ragged, join, pad_parts
from cllm4rec.text.sampling import ItemSampler
from cllm4rec.text.tokenizer import ExtendedTokenizer

TOGETHER = 1 << 17  # tokens, about, of the batches put together at once, as most of the time goes by calls and not by tokens


@dataclass(frozen=True)
class HistoryOptions:
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


class HistoryCorpus(Corpus):
    """What the collaborative and the recommendation corpus share: one example a user with training items."""

    name: ClassVar[str]  # of its template
    salt: ClassVar[int]  # keeps the draws of the two corpora apart

    def __init__(self, train: Interactions, tokenizer: ExtendedTokenizer, options: HistoryOptions) -> None:
        self.train, self.tokenizer, self.options = train, tokenizer, options
        self.template = Template.compile(self.name, tokenizer)
        self.users = np.flatnonzero(np.diff(train.indptr) > 0)
        self.room = options.context - self.template.n_fixed  # items that fit
        if self.room < 2:
            raise ValueError(f"a context of {options.context} tokens has no room for two items: use a longer one")
        self.lengths = self.template.n_fixed + np.minimum(np.diff(train.indptr)[self.users], self.room)
        self._weights = EpochWeights(self)
        self._sampler = ItemSampler(train, options.sampled, options.seed, self.salt) if options.sampled else None

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.options.seed, self.salt, epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        return next(self.batches([examples], epoch, [step]))

    def batches(self, parts: Sequence[np.ndarray], epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        weights = self._weights(epoch)
        lengths = self.lengths_in(epoch)
        group = np.cumsum([lengths[part].sum() for part in parts]) // TOGETHER
        for some in np.split(np.arange(len(parts)), np.flatnonzero(np.diff(group)) + 1) if len(parts) else ():
            own = [parts[i] for i in some]
            together = Parts(np.array([len(part) for part in own]))
            filled = self._batches(*self._fill(np.concatenate(own), epoch), together)
            for step, batch in zip([steps[i] for i in some], filled, strict=True):
                yield batch | {"weights": weights[batch["ids"]]} | self._sample(batch["targets"], epoch, step)

    def _sample(self, targets: torch.Tensor, epoch: int, step: int) -> Batch:
        """Where the softmax is over a sample: `sample` (S,) its items, ascending, `sample_log_p` (S,) and `targets_log_p` (T,)
        the log of the probability that such a sample holds them and the targets."""
        if self._sampler is None:
            return {}
        sample, log_p = self._sampler.draw(epoch, step), self._sampler.log_inclusion
        return as_tensors(sample=sample, sample_log_p=log_p(sample), targets_log_p=log_p(targets.numpy()))

    def unweighed(self, examples: np.ndarray, epoch: int) -> Batch:
        return self._batches(*self._fill(examples, epoch), Parts(np.array([len(examples)])))[0]

    @abstractmethod
    def _fill(self, examples: np.ndarray, epoch: int) -> tuple[Ragged, Ragged, Ragged, Ragged]:
        """Of each example: tokens, places of items in them, items to predict, and items left out of the softmax."""

    @abstractmethod
    def _batches(self, tokens: Ragged, pool: Ragged, targets: Ragged, left_out: Ragged, parts: Parts) -> list[Batch]:
        """What `_fill` gave, as tensors of several batches."""

    def _draw(self, examples: np.ndarray, epoch: int) -> tuple[np.ndarray, Ragged, np.ndarray]:
        """Users (B,), their items in this epoch's order, and whether each keeps its user token."""
        users = self.users[examples]
        events, lengths = self.train.histories(users)
        items = Ragged(self.train.items[events], lengths)
        key = (self.options.seed, self.salt, epoch)
        if self.options.order == "random":
            items = items.ordered(mix(*key, np.repeat(users, lengths), items.places))
        return users, items, uniform(*key, users, -1) >= self.options.user_dropping


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
        [tokens_of[piece] if isinstance(piece, str) else Ragged.constant(piece, len(users)) for piece in pieces]
    )
    return tokens, Ragged(items.beside(begins[template.history]), items.lengths)


def prompt_batches(tokenizer: ExtendedTokenizer, tokens: Ragged, pool: Ragged, parts: Parts) -> list[Batch]:
    """Prompts as `fill` gives them, those of several batches, padded.

    Returns:
        `tokens` and `mask` (B, L); `ids`; and where states may be read, as flat places: `pool` (P,) the items, with
        `pool_rows` (P,) their examples, and `query` (B,) the last token.
    """
    padded, masks, begin = pad_parts(tokens, parts)
    is_id = tokens.values >= tokenizer.n_words
    n_ids = np.add.reduceat(is_id, (np.cumsum(tokens.lengths) - tokens.lengths)[parts.first], dtype=np.int64)
    n_pool = parts.counts(pool)
    columns = {
        "tokens": padded,
        "mask": masks,
        "ids": parts.split(id_numbers(tokens.values, tokenizer), n_ids),
        "pool": parts.split(np.repeat(begin, pool.lengths) + pool.values, n_pool),
        "pool_rows": parts.split(parts.rows_of(pool), n_pool),
        "query": parts.split(begin + tokens.lengths - 1, parts.sizes),
    }
    return [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]


def prompt_batch(tokenizer: ExtendedTokenizer, tokens: Ragged, pool: Ragged) -> Batch:
    """`prompt_batches` of one batch."""
    return prompt_batches(tokenizer, tokens, pool, Parts(np.array([len(tokens.lengths)])))[0]


class CollaborativeCorpus(HistoryCorpus):
    """`user_i has interacted with` + the user's training items; every item is predicted from what stands before it."""

    name = "collaborative"
    salt = 1

    def _fill(self, examples: np.ndarray, epoch: int) -> tuple[Ragged, Ragged, Ragged, Ragged]:
        users, items, keep_user = self._draw(examples, epoch)
        items = items.last(self.room) if self.options.order == "time" else items.first(self.room)
        return *fill(self.template, self.tokenizer, users, items, keep_user), items, items.first(0)

    def _batches(self, tokens: Ragged, pool: Ragged, targets: Ragged, left_out: Ragged, parts: Parts) -> list[Batch]:
        batches, n = prompt_batches(self.tokenizer, tokens, pool, parts), parts.counts(targets)
        rows = parts.split(np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n), n)
        answers = zip(batches, rows, parts.split(targets.values, n), strict=True)
        return [batch | {"rows": own, "targets": items, "read": batch["pool"] - 1} for batch, own, items in answers]


class RecommendationCorpus(HistoryCorpus):
    """`user_i has interacted with ..., user_i will interact with`: part of the items is shown, the head answers the rest.

    Further tensors: those of `prompt_batch`, and `shown` (P,) item numbers, with `shown_rows` (P,) their examples, where
    shown items are left out of the softmax (empty where not).
    """

    name = "recommend"
    salt = 2

    def _fill(self, examples: np.ndarray, epoch: int) -> tuple[Ragged, Ragged, Ragged, Ragged]:
        users, items, keep_user = self._draw(examples, epoch)
        shown, masked = self._mask(users, items, epoch)
        keep_user |= shown.lengths == 0  # a user with one item learns from the user token alone
        targets = items if self.options.targets == "all" else masked
        excluded = shown if self.options.targets == "unseen" else shown.first(0)  # those that do not fit in, too
        shown = shown.last(self.room) if self.options.order == "time" else shown.first(self.room)
        return *fill(self.template, self.tokenizer, users, shown, keep_user), targets, excluded

    def _batches(self, tokens: Ragged, pool: Ragged, targets: Ragged, left_out: Ragged, parts: Parts) -> list[Batch]:
        batches = prompt_batches(self.tokenizer, tokens, pool, parts)
        for one, names in ((targets, ("rows", "targets")), (left_out, ("shown_rows", "shown"))):
            for name, array in zip(names, (parts.rows_of(one), one.values), strict=True):
                for batch, own in zip(batches, parts.split(array, parts.counts(one)), strict=True):
                    batch[name] = own
        return batches

    def lengths_in(self, epoch: int) -> np.ndarray:
        n = np.diff(self.train.indptr)[self.users]
        return self.template.n_fixed + np.minimum(n - self._n_masked(self.users, n, epoch), self.room)

    def _n_masked(self, users: np.ndarray, n: np.ndarray, epoch: int) -> np.ndarray:
        """How many of the n items of each of some users are masked."""
        n_masked = np.clip(np.rint(self.options.mask_share * n).astype(np.int64), 1, np.maximum(n - 1, 1))
        if self.options.order == "time":
            draw = uniform(self.options.seed, self.salt, epoch, users, -2)
            n_masked = np.where(n > 1, 1 + (draw * n_masked).astype(np.int64), n_masked)
        return n_masked

    def _mask(self, users: np.ndarray, items: Ragged, epoch: int) -> tuple[Ragged, Ragged]:
        """Shown and masked items. In random order a random share is masked, in time order a suffix of random length."""
        n = items.lengths
        hidden = items.places >= (n - self._n_masked(users, n, epoch))[items.rows]
        return items.where(~hidden), items.where(hidden)
