"""Histories as sequences of items: the corpus of conventional sequential recommenders."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cllm4rec.corpora.base import Batch, Corpus, Tensors, as_tensor
from cllm4rec.corpora.padding import assemble
from cllm4rec.data.audit import learns_from
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged, ranges
from cllm4rec.data.randomness import permutation


@dataclass(frozen=True, kw_only=True)
class ItemSequences(Tensors):
    """Sequences of items, oldest first, padded on the right.

    Attributes:
        tokens: int64 (B, L), item numbers, 0 at padding.
        mask: bool (B, L), True at items.
        positions_from_end: int64 (B, L), number of later items in the sequence; 0 at the newest and at
            padding.
    """

    tokens: Tensor
    mask: Tensor
    positions_from_end: Tensor


@dataclass(frozen=True, kw_only=True)
class NextItemBatch(ItemSequences, Batch):
    """Sequences of items, and the item that follows each of them.

    Attributes:
        tokens, mask, positions_from_end: as in `ItemSequences`.
        state_index: int64 (T,), flat index of each item, whose state predicts the next.
        target_items: int64 (T,), the item that came next.

    Example: the histories [5, 3, 4] and [2, 0] of 6 items give

        tokens       [[5, 3], [2, 0]]
        mask         [[1, 1], [1, 0]]
        positions_from_end         [[1, 0], [0, 0]]
        state_index  [0, 1, 2]
        target_items [3, 4, 0]
    """

    state_index: Tensor
    target_items: Tensor

    @property
    def n_targets(self) -> int:
        return len(self.target_items)


def item_sequences(items: Ragged) -> ItemSequences:
    """Histories (B rows), oldest item first, as padded sequences."""
    return _pad(items)[0]


def _pad(items: Ragged) -> tuple[ItemSequences, Tensor]:
    """Padded sequences, and the flat index of each item (total,)."""
    tokens, mask, (index,) = assemble([items])
    positions_from_end = np.maximum(items.lengths[:, None] - 1 - np.arange(tokens.shape[1])[None, :], 0)
    sequences = ItemSequences(
        tokens=as_tensor(tokens), mask=as_tensor(mask), positions_from_end=as_tensor(positions_from_end)
    )
    return sequences, as_tensor(index)


class NextItemCorpus(Corpus):
    """One example a user: each training item but the first is predicted from the items before it.

    Args:
        train: the training events.
        length: most items that are read, the newest.
        seed: of the order of the users.
    """

    stream = 4

    def __init__(self, train: Interactions, length: int, seed: int) -> None:
        learns_from("training histories", train)
        self.train, self.length, self.seed = train, length, seed
        n_events = np.diff(train.indptr)
        self.users = np.flatnonzero(n_events > 1)
        self.lengths = np.minimum(n_events[self.users] - 1, length)

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.lengths), self.seed, self.stream, epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> NextItemBatch:
        items = self.train.histories(self.users[examples]).last(self.length + 1)
        targets = items.values[items.positions > 0]
        sequences, state_index = _pad(items.filter(~items.last_in_row))
        return NextItemBatch(**vars(sequences), state_index=state_index, target_items=as_tensor(targets))


class PrefixCorpus(NextItemCorpus):
    """One example an event: each training item but the first of a user, from the items before it.

    For encoders that mix all positions of what they read. They compute `length` positions for each example.

    Args:
        train, length, seed: as for `NextItemCorpus`.
    """

    stream = 8

    def __init__(self, train: Interactions, length: int, seed: int) -> None:
        super().__init__(train, length, seed)
        first = train.indptr[train.users]  # (n_events,) of each event's user
        self.targets = np.flatnonzero(np.arange(len(train)) > first)  # numbers of the events
        self.n_before = np.minimum(self.targets - first[self.targets], length)
        self.lengths = np.full(len(self.targets), length)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> NextItemBatch:
        targets, n_before = self.targets[examples], self.n_before[examples]
        items = Ragged(self.train.items[ranges(targets - n_before, n_before)], n_before)
        sequences, index = _pad(items)
        newest = index[as_tensor(items.last_in_row)]
        return NextItemBatch(
            **vars(sequences), state_index=newest, target_items=as_tensor(self.train.items[targets])
        )
