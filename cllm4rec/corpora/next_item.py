"""Histories as plain sequences of items: what a conventional sequential recommender reads."""

import numpy as np

from cllm4rec.corpora.base import Corpus, as_tensors
from cllm4rec.corpora.padding import Batch, assemble
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.randomness import permutation


def next_item_inputs(items: Ragged) -> Batch:
    """Sequences (B) of items side by side, padded on the right, the longest L.

    Returns:
        `tokens` (B, L) item numbers, 0 at padding; `mask` (B, L), True at items; `ages` (B, L) how many items came after
        each, 0 at the newest; `read` (P,) flat places of the items.
    """
    tokens, mask, (places,) = assemble([items])
    ages = np.maximum(items.lengths[:, None] - 1 - np.arange(tokens.shape[1])[None, :], 0)
    return as_tensors(tokens=tokens, mask=mask, ages=ages, read=places)


class NextItemCorpus(Corpus):
    """The training items of each user in time order; every one but the first is predicted from those before it.

    Args:
        train: the events to learn from.
        length: most items that are read; older ones are left out.
        seed: of the order of the users.
    """

    stream = 4

    def __init__(self, train: Interactions, length: int, seed: int) -> None:
        self.train, self.length, self.seed = train, length, seed
        n = np.diff(train.indptr)
        self.users = np.flatnonzero(n > 1)
        self.lengths = np.minimum(n[self.users] - 1, length)

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.seed, self.stream, epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        items = self.train.histories(self.users[examples]).last(self.length + 1)
        batch = next_item_inputs(items.where(items.positions < (items.lengths - 1)[items.rows]))
        targets = items.values[items.positions > 0]
        return batch | as_tensors(rows=np.arange(len(targets)), targets=targets)
