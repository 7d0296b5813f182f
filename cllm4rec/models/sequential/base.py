"""Conventional sequential recommenders: item embeddings, an encoder, a softmax over all items."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.corpora.next_item import ItemSequences, NextItemBatch, NextItemCorpus, item_sequences
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.files.damage import reading
from cllm4rec.models.description import ModelDescription, Shapes, check_layers
from cllm4rec.models.histories import encode_by_length
from cllm4rec.models.item_vectors.recommender import ItemVectorNet, ItemVectorRecommender
from cllm4rec.models.sequential.config import SequentialConfig
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import multinomial_nll
from cllm4rec.training.objective import Objective


class SequentialNet(ItemVectorNet):
    """Item vectors (n_items, d), read by an encoder, and the softmax tied to them."""

    config: SequentialConfig

    @abstractmethod
    def encode(self, embedded: Tensor, sequences: ItemSequences) -> Tensor:
        """States (B, L, d) of embedded sequences (B, L, d), the newest item's from it and those before it."""

    def embed(self, sequences: ItemSequences, vectors: Tensor) -> Tensor:
        """What the encoder reads, (B, L, d), with the vectors (n_items, d) of all items."""
        scaled = vectors[sequences.tokens] * self.config.width**0.5
        return functional.dropout(scaled, self.config.dropout, self.training)

    def read_lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Positions (B,) that the encoder computes for histories of these lengths (B,), 0 for empty ones."""
        return lengths

    def states(self, sequences: ItemSequences, vectors: Tensor | None = None) -> Tensor:
        """States (B, L, d) of sequences; `vectors` (n_items, d) are those of all items, if computed."""
        vectors = self.item_vectors() if vectors is None else vectors
        return self.encode(self.embed(sequences, vectors), sequences)

    def forward(self, objective: str, batch: NextItemBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next items over the whole catalogue, summed."""
        vectors = self.item_vectors()
        states, targets = self.states(batch, vectors).flatten(0, 1)[batch.state_index], batch.target_items
        rows = torch.arange(len(targets), device=targets.device)
        return {objective: multinomial_nll(states, vectors, rows, targets)}


class SequentialRecommender(ItemVectorRecommender):
    """Predicts the next item from the items before it, in time order. A user is nothing but a history."""

    config_class = SequentialConfig
    config: SequentialConfig
    net: SequentialNet

    @abstractmethod
    def _new_net(self, n_items: int) -> SequentialNet:
        """A network with random weights."""

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> ItemVectorNet:
        with reading(folder, REMEDY):
            check_layers(self.config.layers, shapes)
        return super()._rebuild(folder, described, shapes)

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        return [Objective("next item", self._corpus(train.interactions, config.seed))]

    def _corpus(self, train: Interactions, seed: int) -> NextItemCorpus:
        """The training examples."""
        return NextItemCorpus(train, self.config.length, seed)

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        items, vectors = seen.interactions.histories(users).last(self.config.length), self.item_vectors()

        def encode(rows: np.ndarray) -> Tensor:
            sequences = item_sequences(items.take(rows)).to(self.device)
            newest = sequences.mask.sum(1) - 1  # (b,)
            return self.net.states(sequences, vectors)[torch.arange(len(rows)), newest]

        return encode_by_length(
            self.net, self.net.read_lengths(items.lengths), self.config.width, encode
        ), vectors

    def _item_vectors(self) -> Tensor:
        return self.net.eval().item_vectors()


def top_unseen(model: SequentialRecommender, train: Dataset, n: int) -> np.ndarray:
    """The items that a model ranks highest for each user, known ones left out, int64 (n_users, n).

    Where fewer items are left, the first is repeated. A user without events, or with all items,
    has zeros.
    """
    top = np.zeros((train.n_users, n), dtype=np.int64)
    users = np.flatnonzero(np.diff(train.interactions.indptr) > 0)
    if n:
        for lists in model.rank_batches(users, train, n):
            top[lists.users] = np.maximum(np.where(lists.items >= 0, lists.items, lists.items[:, :1]), 0)
    return top
