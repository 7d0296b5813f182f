"""Examples to learn from, as numbers, and their batches: words tokenised once, IDs placed by arithmetic.

A corpus answers two questions. `selection(epoch)`: which examples does this epoch visit, in which order? And
`batch(examples, epoch, step)`: the tensors of some of them. What an example looks like (order of items, mask, dropped user
token, window of a long text) is a function of (seed, epoch, example) alone.

A batch in tensors, for two users with the items {5, 3} and {7} of a collaborative corpus (words 900 901 902, I users):

    tokens   [[u0, 900, 901, 902, i3, i5], [u1, 900, 901, 902, i7, 0]]      (B, L)
    mask     [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]                       (B, L)
    read     [3, 4, 9]           where states are read, row * L + column      (R,)
    rows     [0, 1, 2]           which state predicts ...                    (T,)
    targets  [3, 5, 7]           ... which item (or word)                    (T,)
    ids      [u0, i3, i5, u1, i7] ID numbers that occur: user i -> i, item j -> n_users + j
    weights  [1, 1, 1, 1, 1]     1 / occurrences of that ID in this epoch
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from cllm4rec.corpora.padding import Batch


class Corpus(ABC):
    """Examples of one objective."""

    lengths: np.ndarray  # tokens of each example, about

    @abstractmethod
    def selection(self, epoch: int) -> np.ndarray:
        """Examples that an epoch visits, in its order."""

    def lengths_in(self, epoch: int) -> np.ndarray:
        """Tokens of each example in an epoch, about: examples of like length are computed together."""
        return self.lengths

    @abstractmethod
    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        """Tensors of some examples, as they are in that epoch: `mask`, `targets` and what the network reads.

        `step` numbers the global batch within the epoch: what all its examples share may depend on it."""

    def batches(self, parts: Sequence[np.ndarray], epoch: int, steps: Sequence[int]) -> Iterator[Batch]:
        """`batch` of each of some parts, in the step of that place; a corpus may put them together faster at once."""
        for part, step in zip(parts, steps, strict=True):
            yield self.batch(part, epoch, step)


class CorpusWithIDs(Protocol):
    """Examples with ID tokens."""

    def occurrences(self, epoch: int) -> np.ndarray:
        """How often each ID stands in the batches of an epoch (n_users + n_items,): dropped tokens do not count."""
        ...


class EpochWeights:
    """1 / occurrences of each ID in an epoch."""

    def __init__(self, corpus: CorpusWithIDs) -> None:
        self.corpus = corpus
        self.epoch: int | None = None
        self.weights = torch.empty(0)

    def __call__(self, epoch: int) -> torch.Tensor:
        if epoch != self.epoch:
            counts = torch.from_numpy(self.corpus.occurrences(epoch).astype(np.float32))
            self.epoch, self.weights = epoch, 1.0 / counts
        return self.weights


def as_tensors(**arrays: np.ndarray) -> Batch:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
