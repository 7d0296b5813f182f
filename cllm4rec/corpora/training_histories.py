"""Training histories: the order of their items in an epoch, and which of them are masked."""

from itertools import pairwise

import numpy as np

from cllm4rec.data.audit import learns_from
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.randomness import mix, permutation, uniform

TOKENS_PER_CHUNK = 1 << 17  # of what is computed together: most of the time is per call, not per token


class TrainingHistories:
    """The histories of the users with training items, as they are in each epoch.

    Attributes:
        users: int64 (n,), the users.
        n_events: int64 (n,), their training events.
    """

    def __init__(self, train: Interactions, order: str, seed: int, stream: int) -> None:
        """
        Args:
            train: the training events.
            order: "random" (shuffled anew each epoch) or "time".
            seed: of all random numbers.
            stream: number of the corpus; corpora of other numbers draw other random numbers.
        """
        learns_from("training histories", train)
        self.train, self.order, self.seed, self.stream = train, order, seed, stream
        n_events = np.diff(train.indptr)
        self.users = np.flatnonzero(n_events > 0)
        self.n_events = n_events[self.users]

    def selection(self, epoch: int, *key: int) -> np.ndarray:
        """All histories in random order, int64 (n,), which depends on the epoch and further numbers."""
        return permutation(len(self.users), self.seed, self.stream, epoch, *key)

    def ordered(self, epoch: int) -> Ragged:
        """The items of all histories in the order of an epoch."""
        train = self.train
        if self.order != "random":
            return Ragged(train.items, self.n_events)
        ordered = [train.items[:0]]
        for start, end in chunks(self.n_events):
            users, n_events = self.users[start:end], self.n_events[start:end]
            # Users without events have no items: the chunk is one slice of all events.
            items = Ragged(train.items[train.indptr[users[0]] : train.indptr[users[-1] + 1]], n_events)
            keys = mix(self.seed, self.stream, epoch, users[items.rows], items.positions)
            ordered.append(items.sorted_by(keys).values)
        return Ragged(np.concatenate(ordered), self.n_events)

    def n_masked(self, share: float, epoch: int) -> np.ndarray:
        """Number of masked items of each history, int64 (n,): at least one, and one item is kept.

        In time order it is drawn, so that a history is predicted from beginnings of all lengths.

        Args:
            share: most of a history that is masked.
            epoch: in which.
        """
        n = self.n_events
        n_masked = np.clip(np.rint(share * n).astype(np.int64), 1, np.maximum(n - 1, 1))
        if self.order == "time":
            draw = uniform(self.seed, self.stream, epoch, self.users, -2)
            n_masked = np.where(n > 1, 1 + (draw * n_masked).astype(np.int64), n_masked)
        return n_masked

    def divided(self, items: Ragged, share: float, epoch: int) -> tuple[Ragged, Ragged]:
        """The kept and the masked items of each history, of all items as `ordered` gives them.

        The only item of a history is masked.
        """
        n_masked = self.n_masked(share, epoch)
        # The last ones are masked: in time order the newest.
        is_masked = items.positions >= np.repeat(items.lengths - n_masked, items.lengths)
        kept = Ragged(items.values[~is_masked], items.lengths - n_masked)
        return kept, Ragged(items.values[is_masked], n_masked)


def chunks(n_tokens: np.ndarray) -> list[tuple[int, int]]:
    """Chunks (start, end) of rows with about TOKENS_PER_CHUNK tokens; n_tokens: (B,) of each row."""
    if not len(n_tokens):
        return []
    number = np.cumsum(n_tokens) // TOKENS_PER_CHUNK
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(n_tokens)]
    return list(pairwise(edges))
