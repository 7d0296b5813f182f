"""Histories as training examples of CLLM4Rec: the collaborative and the recommendation corpus."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.base import Corpus, EpochWeights, ExcludedItems
from cllm4rec.corpora.history_batches import (
    CollaborativeBatch,
    HistoryPrompts,
    RecommendationBatch,
    fill,
    pad_prompts,
)
from cllm4rec.corpora.item_sampler import ItemSampler
from cllm4rec.corpora.padding import BatchGroup
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.corpora.training_histories import TrainingHistories, chunks
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.randomness import uniform


@dataclass(frozen=True)
class HistoryCorpusOptions:
    """How histories become prompts and texts.

    Attributes:
        context: most tokens of an example; items are left out to keep to it, tokens of the template never.
        order: "random" (shuffled anew each epoch) or "time".
        user_dropping: share of examples without their user token.
        mask_share: share of a history that is masked in finetuning (at least one item, and one is kept).
        targets: what finetuning predicts: "unseen" (the masked items, the rest of the history left out of the
            softmax), "masked" (the masked items, softmax over all) or "all" (all items of the history).
        sampled: most items that the softmax of a step is over; 0: all.
        seed: of all random numbers.
        template: of finetuning: "recommend" or "set".
    """

    context: int
    order: str = "random"
    user_dropping: float = 0.0
    mask_share: float = 0.2
    targets: str = "unseen"
    sampled: int = 0
    seed: int = 0
    template: str = "recommend"


HistoryBatch = TypeVar("HistoryBatch", CollaborativeBatch, RecommendationBatch)


@dataclass(frozen=True)
class Examples:
    """Examples of an epoch.

    Attributes:
        users: int64 (B,).
        keep_user: bool (B,), whether the prompt has its user token.
        shown: items in the prompt (B rows).
        targets: items to predict (B rows).
        excluded: items left out of the softmax (B rows).
    """

    users: np.ndarray
    keep_user: np.ndarray
    shown: Ragged
    targets: Ragged
    excluded: Ragged

    def take(self, rows: np.ndarray) -> "Examples":
        """The examples of these numbers, in this order."""
        shown = self.shown.take(rows)
        targets, excluded = (
            shown if items is self.shown else items.take(rows) for items in (self.targets, self.excluded)
        )
        return Examples(self.users[rows], self.keep_user[rows], shown, targets, excluded)


class HistoryCorpus(Corpus, Generic[HistoryBatch]):
    """Base of the two corpora: one example for each user with training items.

    Raises:
        ValueError: the context is too short for the template and two items.
    """

    name: ClassVar[str]
    stream: ClassVar[int]  # the two corpora draw different random numbers

    def __init__(
        self, train: Interactions, tokenizer: ExtendedTokenizer, options: HistoryCorpusOptions
    ) -> None:
        self.train, self.tokenizer, self.options = train, tokenizer, options
        self.template = Template.compile(self.template_name, tokenizer)
        self.histories = TrainingHistories(train, options.order, options.seed, self.stream)
        self.users = self.histories.users
        self.room = options.context - self.template.n_fixed  # items that fit
        if self.room < 2:
            raise ValueError(
                f"a context of {options.context} tokens has no room for two items: use a longer one"
            )
        self.lengths = self.template.n_fixed + np.minimum(self.histories.n_events, self.room)
        self._weights = EpochWeights(self)
        self._epoch_examples: tuple[int, Examples] | None = None
        self._sampler = (
            ItemSampler(train, options.sampled, options.seed, self.stream) if options.sampled else None
        )

    @property
    def template_name(self) -> str:
        """The name of its template."""
        return self.name

    def selection(self, epoch: int) -> np.ndarray:
        return self.histories.selection(epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> HistoryBatch:
        return next(self.batches([examples], epoch, [step]))

    def batches(
        self, groups: Sequence[np.ndarray], epoch: int, steps: Sequence[int]
    ) -> Iterator[HistoryBatch]:
        weights, examples, lengths = self._weights(epoch), self._examples(epoch), self.lengths_in(epoch)
        n_tokens = np.array([lengths[group].sum() for group in groups], dtype=np.int64)
        for start, end in chunks(n_tokens):
            group = BatchGroup(np.array([len(rows) for rows in groups[start:end]]))
            chunk = examples.take(np.concatenate(groups[start:end]))
            tokens, positions = fill(self.template, self.tokenizer, chunk.users, chunk.shown, chunk.keep_user)
            prompts = pad_prompts(self.tokenizer, tokens, positions, group)
            ids = [batch.ids for batch in prompts]
            id_weights = weights[torch.cat(ids)].split([len(numbers) for numbers in ids])
            batches = self._with_targets(chunk, group, prompts, id_weights)
            for batch, step in zip(batches, steps[start:end], strict=True):
                if self._sampler is None:
                    yield batch
                else:
                    sample = self._sampler.sample(batch.target_items.numpy(), epoch, step)
                    yield replace(batch, sample=sample)

    def occurrences(self, epoch: int) -> np.ndarray:
        examples, n_users = self._examples(epoch), self.tokenizer.n_users
        counts = np.bincount(n_users + examples.shown.values, minlength=n_users + self.tokenizer.n_items)
        counts[examples.users] = examples.keep_user * self.template.count("user")
        return counts

    def _examples(self, epoch: int) -> Examples:
        """All examples as they are in an epoch; those of the latest epoch are kept."""
        if self._epoch_examples is None or self._epoch_examples[0] != epoch:
            self._epoch_examples = None  # free those of the last epoch first: both need not fit in memory
            draw = uniform(self.options.seed, self.stream, epoch, self.users, -1)
            keep_user = draw >= self.options.user_dropping
            self._epoch_examples = (epoch, self._divide(self.histories.ordered(epoch), keep_user, epoch))
        return self._epoch_examples[1]

    def _fitting(self, items: Ragged) -> Ragged:
        """The items of each example that fit in the context."""
        if (items.lengths <= self.room).all():
            return items
        items = Ragged(items.values, items.lengths)  # a new object: cached properties are freed with it
        return items.last(self.room) if self.options.order == "time" else items.first(self.room)

    @abstractmethod
    def _divide(self, items: Ragged, keep_user: np.ndarray, epoch: int) -> Examples:
        """Divide the items of all examples into shown, target and excluded items."""

    @abstractmethod
    def _with_targets(
        self,
        examples: Examples,
        group: BatchGroup,
        prompts: list[HistoryPrompts],
        id_weights: Sequence[Tensor],
    ) -> Iterator[HistoryBatch]:
        """Batches of examples (B rows): prompts and targets."""


class CollaborativeCorpus(HistoryCorpus[CollaborativeBatch]):
    """`user_i has interacted with` and the training items, each predicted from the tokens before it."""

    name = "collaborative"
    stream = 1

    def _divide(self, items: Ragged, keep_user: np.ndarray, epoch: int) -> Examples:
        shown = self._fitting(items)
        return Examples(self.users, keep_user, shown, shown, shown.emptied())

    def _with_targets(
        self,
        examples: Examples,
        group: BatchGroup,
        prompts: list[HistoryPrompts],
        id_weights: Sequence[Tensor],
    ) -> Iterator[CollaborativeBatch]:
        target_items = group.split(examples.targets.values, group.counts(examples.targets))
        for prompt, weights, items in zip(prompts, id_weights, target_items, strict=True):
            yield CollaborativeBatch(
                tokens=prompt.tokens,
                mask=prompt.mask,
                ids=prompt.ids,
                id_weights=weights,
                state_index=prompt.item_index - 1,
                target_items=items,
            )


class RecommendationCorpus(HistoryCorpus[RecommendationBatch]):
    """`user_i has interacted with ..., user_i will interact with`: the kept items predict the masked ones."""

    name = "recommend"
    stream = 2

    @property
    def template_name(self) -> str:
        return self.options.template

    def _divide(self, items: Ragged, keep_user: np.ndarray, epoch: int) -> Examples:
        shown, masked = self.histories.divided(items, self.options.mask_share, epoch)
        keep_user = keep_user | (shown.lengths == 0)  # a user with one item learns from the user token alone
        targets = Ragged(items.values, items.lengths) if self.options.targets == "all" else masked
        # Shown items that do not fit in the context are excluded too.
        excluded = shown if self.options.targets == "unseen" else shown.emptied()
        return Examples(self.users, keep_user, self._fitting(shown), targets, excluded)

    def _with_targets(
        self,
        examples: Examples,
        group: BatchGroup,
        prompts: list[HistoryPrompts],
        id_weights: Sequence[Tensor],
    ) -> Iterator[RecommendationBatch]:
        target_rows, target_items = _by_batch(examples.targets, group)
        excluded: Sequence[ExcludedItems | None] = [None] * len(prompts)
        if self.options.targets == "unseen":
            columns = zip(*_by_batch(examples.excluded, group), strict=True)
            excluded = [ExcludedItems(rows=rows, items=items) for rows, items in columns]
        for prompt, weights, rows, items, left_out in zip(
            prompts, id_weights, target_rows, target_items, excluded, strict=True
        ):
            yield RecommendationBatch(
                **vars(prompt), id_weights=weights, target_rows=rows, target_items=items, excluded=left_out
            )

    def lengths_in(self, epoch: int) -> np.ndarray:
        n_masked = self.histories.n_masked(self.options.mask_share, epoch)
        return self.template.n_fixed + np.minimum(self.histories.n_events - n_masked, self.room)


def _by_batch(items: Ragged, group: BatchGroup) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Of each batch the examples of its items, and the items."""
    counts = group.counts(items)
    return group.split(group.value_rows(items), counts), group.split(items.values, counts)
