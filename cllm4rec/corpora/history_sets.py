"""Histories as sets of items, without a tokenizer: the corpus of systems that sum over a history."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.base import Batch, Corpus, ExcludedItems, Tensors, as_tensor
from cllm4rec.corpora.training_histories import TrainingHistories
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged


@dataclass(frozen=True)
class HistorySetOptions:
    """How histories become examples.

    Attributes:
        mask_share: share of a history that is left out of the input (at least one item, and one is kept);
            0: none.
        targets: what is predicted: "unseen" (the masked items, the input left out of the softmax), "masked"
            (the masked items, softmax over all) or "all" (all items of the history).
        order: "random" (any items are masked) or "time" (the newest).
        passes: how often an epoch visits each history.
        seed: of all random numbers.
    """

    mask_share: float = 0.0
    targets: str = "all"
    order: str = "random"
    passes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.mask_share and self.targets != "all":
            raise ValueError(f"`targets` is {self.targets!r}: no item is masked, so it has to be 'all'")


@dataclass(frozen=True, kw_only=True)
class HistorySets(Tensors):
    """Sets of items, one a row, without padding.

    Attributes:
        items: int64 (P,), item numbers, row after row.
        item_rows: int64 (P,), row of each, ascending.
        lengths: int64 (B,), items of each row; may be 0.
    """

    items: Tensor
    item_rows: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class HistorySetBatch(HistorySets, Batch):
    """Sets of input items, and the items that each of them predicts.

    Attributes:
        items, item_rows, lengths: as in `HistorySets`.
        mask: bool (B, 1), True: an example counts as one token, as its cost is that of its softmax.
        target_rows: int64 (T,), example of each target, ascending.
        target_items: int64 (T,), item numbers.
        excluded: items left out of the softmax; None: none.

    Example: two users with the items {5, 3, 4} and {7, 2}, of which 4 and 2 are masked and predicted:

        items        [5, 3, 7]
        item_rows    [0, 0, 1]
        lengths      [2, 1]
        mask         [[1], [1]]
        target_rows  [0, 1]
        target_items [4, 2]
        excluded     rows [0, 0, 1], items [5, 3, 7], with the targets "unseen"
    """

    target_rows: Tensor
    target_items: Tensor
    excluded: ExcludedItems | None = None

    @property
    def n_targets(self) -> int:
        return len(self.target_items)


def history_sets(items: Ragged) -> HistorySets:
    """Histories (B rows) as sets."""
    return HistorySets(
        items=as_tensor(items.values), item_rows=as_tensor(items.rows), lengths=as_tensor(items.lengths)
    )


class HistorySetCorpus(Corpus):
    """One example a user with training items; where items are masked, a user with two.

    Nothing is padded: a batch is computed whole, whatever the lengths of its histories.
    """

    stream = 7

    def __init__(self, train: Interactions, options: HistorySetOptions) -> None:
        self.options = options
        if options.mask_share:  # the only item of a history would be masked, and nothing be left as input
            train = train.select(np.diff(train.indptr)[train.users] > 1)
        self.histories = TrainingHistories(train, options.order, options.seed, self.stream)
        self.users = self.histories.users
        self.lengths = np.ones(len(self.users), dtype=np.int64)
        self._in_epoch: tuple[int, tuple[Ragged, Ragged]] | None = None

    def selection(self, epoch: int) -> np.ndarray:
        return np.concatenate(
            [self.histories.selection(epoch, number) for number in range(self.options.passes)]
        )

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> HistorySetBatch:
        kept, predicted = (items.take(examples) for items in self._divided(epoch))
        excluded = None
        if self.options.targets == "unseen":
            excluded = ExcludedItems(rows=as_tensor(kept.rows), items=as_tensor(kept.values))
        return HistorySetBatch(
            **vars(history_sets(kept)),
            mask=torch.ones(len(examples), 1, dtype=torch.bool),
            target_rows=as_tensor(predicted.rows),
            target_items=as_tensor(predicted.values),
            excluded=excluded,
        )

    def _divided(self, epoch: int) -> tuple[Ragged, Ragged]:
        """Input items and targets of all examples in an epoch; those of the latest epoch are kept."""
        if not self.options.mask_share:
            epoch = 0  # a set has no order: every epoch has the same
        if self._in_epoch is None or self._in_epoch[0] != epoch:
            self._in_epoch = None  # free those of the last epoch first
            self._in_epoch = (epoch, self._divide(epoch))
        return self._in_epoch[1]

    def _divide(self, epoch: int) -> tuple[Ragged, Ragged]:
        """The same, computed."""
        if not self.options.mask_share:
            items = Ragged(self.histories.train.items, self.histories.n_events)
            return items, items
        items = self.histories.ordered(epoch)
        kept, masked = self.histories.divided(items, self.options.mask_share, epoch)
        return kept, items if self.options.targets == "all" else masked
