"""Histories as plain sequences of items: what a conventional sequential recommender reads."""

import numpy as np

from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import permutation
from cllm4rec.text.corpora import Corpus, as_tensors
from cllm4rec.text.ragged import Batch, Ragged, assemble


def sequence_batch(items: Ragged) -> Batch:
    """Sequences (B) of items side by side, padded on the right, the longest L.

    Returns:
        `tokens` (B, L) item numbers, 0 at padding; `mask` (B, L), True at items; `ages` (B, L) how many items came after
        each, 0 at the newest; `read` (P,) flat places of the items.
    """
    tokens, mask, (places,) = assemble([items])
    ages = np.maximum(items.lengths[:, None] - 1 - np.arange(tokens.shape[1])[None, :], 0)
    return as_tensors(tokens=tokens, mask=mask, ages=ages, read=places)


class SequenceCorpus(Corpus):
    """The training items of each user in time order; every one but the first is predicted from those before it.

    Args:
        train: the events to learn from.
        length: most items that are read; older ones are left out.
        seed: of the order of the users.
    """

    salt = 4

    def __init__(self, train: Interactions, length: int, seed: int) -> None:
        self.train, self.length, self.seed = train, length, seed
        n = np.diff(train.indptr)
        self.users = np.flatnonzero(n > 1)
        self.lengths = np.minimum(n[self.users] - 1, length)

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.seed, self.salt, epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        events, lengths = self.train.histories(self.users[examples])
        items = Ragged(self.train.items[events], lengths).last(self.length + 1)
        batch = sequence_batch(items.where(items.places < (items.lengths - 1)[items.rows]))
        targets = items.values[items.places > 0]
        return batch | as_tensors(rows=np.arange(len(targets)), targets=targets)
