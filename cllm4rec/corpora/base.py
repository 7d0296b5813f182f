"""Corpora and batches: training examples as numbers, tokenised once.

A corpus answers two questions. `selection(epoch)`: which examples does an epoch visit, in which order? And
`batch(examples, epoch, step)`: the tensors of a batch. An example (order of items, mask, dropped user token,
window of a long text) is a function of (seed, epoch, example) alone.

Each corpus has a dataclass of its batches. Their fields are named by one convention:

    tokens, mask    (B, L) padded on the right; mask is True at tokens
    ..._index       flat indices (row * L + column) into the B * L hidden states
    ..._rows        example of the batch that each value belongs to
    target_items    item numbers; target_tokens: tokens of the vocabulary
    local_...       indices into the batch's list of items
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """Base of dataclasses whose fields are tensors, further `Tensors`, or None."""

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """The same on a device."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in fields.items()}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Batch(Tensors, ABC):
    """A batch of training examples: what the training loop needs of it.

    Attributes:
        mask: bool (B, L), True at tokens, False at padding.
    """

    mask: Tensor

    @property
    @abstractmethod
    def n_targets(self) -> int:
        """Targets of the batch: the loss is a mean over those of the global batch."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the batch, without padding."""
        return int(self.mask.sum())


@dataclass(frozen=True, kw_only=True)
class ExcludedItems(Tensors):
    """Items left out of the softmax of their examples.

    Attributes:
        rows: int64 (E,), example of each, ascending.
        items: int64 (E,), item numbers.
    """

    rows: Tensor
    items: Tensor


class Corpus(ABC):
    """Examples of one objective.

    Attributes:
        lengths: int64 (n_examples,), approximate number of tokens of each example.
    """

    lengths: np.ndarray

    @abstractmethod
    def selection(self, epoch: int) -> np.ndarray:
        """Examples that an epoch visits, in its order, int64 (n,)."""

    def lengths_in(self, epoch: int) -> np.ndarray:
        """Approximate tokens of each example in an epoch: those of similar length are computed together."""
        return self.lengths

    @abstractmethod
    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        """The tensors of examples (B,) as they are in an epoch.

        `step` numbers the global batch within the epoch: what all its examples share may depend on it.
        """

    def batches(self, groups: Sequence[np.ndarray], epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        """`batch` of each group of examples and its step. Subclasses may override it to be faster."""
        for examples, step in zip(groups, steps, strict=True):
            yield self.batch(examples, epoch, step)


class CorpusWithIDs(Protocol):
    """A corpus whose examples have ID tokens."""

    def occurrences(self, epoch: int) -> np.ndarray:
        """Occurrences of each ID in the batches of an epoch (n_users + n_items,), without dropped tokens."""
        ...


class EpochWeights:
    """1 / occurrences of each ID in an epoch, float32 (n_users + n_items,)."""

    def __init__(self, corpus: CorpusWithIDs) -> None:
        self.corpus = corpus
        self.epoch: int | None = None
        self.weights = torch.empty(0)

    def __call__(self, epoch: int) -> Tensor:
        if epoch != self.epoch:
            counts = torch.from_numpy(self.corpus.occurrences(epoch).astype(np.float32))
            self.epoch, self.weights = epoch, 1.0 / counts
        return self.weights


def as_tensor(array: np.ndarray) -> Tensor:
    """An array as a tensor that shares its memory where it is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(array))
