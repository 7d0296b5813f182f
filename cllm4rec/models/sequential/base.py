"""Conventional sequential recommenders: item embeddings, an encoder, a softmax over all items."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.next_item import ItemSequences, NextItemBatch, NextItemCorpus, item_sequences
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.description import ModelDescription, Shapes, check_layers, check_shapes
from cllm4rec.models.histories import encode_by_length
from cllm4rec.models.item_vectors.sources import check_sources, item_sources
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.sequential.config import SequentialConfig
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import multinomial_nll
from cllm4rec.training.objective import Objective


class SequentialNet(nn.Module):
    """Item vectors (n_items, d), read by an encoder, and the softmax tied to them.

    Attributes:
        items: the embeddings e of the items.
        item_text: what their texts add to them; None for nothing.
    """

    def __init__(self, config: SequentialConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Parameter(torch.randn(n_items, config.width) * ID_EMBEDDING_STD)
        self.item_text: TextEmbeddings | None = None

    @abstractmethod
    def encode(self, embedded: Tensor, sequences: ItemSequences) -> Tensor:
        """States (B, L, d) of embedded sequences (B, L, d), each from its item and those before it."""

    def item_vectors(self) -> Tensor:
        """The vectors of all items (n_items, d)."""
        return self.items if self.item_text is None else self.item_text.added_to(self.items)

    def states(self, sequences: ItemSequences, vectors: Tensor | None = None) -> Tensor:
        """States (B, L, d) of sequences; `vectors` (n_items, d) are those of all items, if computed."""
        vectors = self.item_vectors() if vectors is None else vectors
        embedded = vectors[sequences.tokens] * self.config.width**0.5
        return self.encode(functional.dropout(embedded, self.config.dropout, self.training), sequences)

    def forward(self, objective: str, batch: NextItemBatch) -> dict[str, Tensor]:
        """Cross-entropy of the next items over the whole catalogue, summed."""
        vectors = self.item_vectors()
        states, targets = self.states(batch, vectors).flatten(0, 1)[batch.state_index], batch.target_items
        rows = torch.arange(len(targets), device=targets.device)
        return {objective: multinomial_nll(states, vectors, rows, targets)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the item embeddings, those of texts, and the encoder."""
        texts = [] if self.item_text is None else [*self.item_text.parameters()]
        others = {id(self.items), *map(id, texts)}
        return {
            "items": [self.items],
            "texts": texts,
            "encoder": [p for p in self.parameters() if id(p) not in others],
        }

    def diagnostics(self) -> dict[str, float]:
        """None."""
        return {}


class SequentialRecommender(NeuralRecommender):
    """Predicts the next item from the items before it, in time order. A user is nothing but a history."""

    config_class = SequentialConfig
    config: SequentialConfig
    net: SequentialNet

    @abstractmethod
    def _new_net(self, n_items: int) -> SequentialNet:
        """A network with random weights."""

    def check(self, dataset: Dataset) -> None:
        """Refuse an encoder or a file of vectors that cannot be read."""
        super().check(dataset)
        check_sources(self.config, dataset)

    def _build(self, train: Dataset, seed: int) -> SequentialNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self._new_net(train.n_items)
        net.item_text = TextEmbeddings.of(self.config, item_sources(self.config, train), self.config.width)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> SequentialNet:
        with reading(folder, REMEDY):
            check_layers(self.config.layers, shapes)
            check_shapes(lambda: self._new_net(len(self.item_ids)), shapes)
        net = self._new_net(len(self.item_ids))
        net.item_text = TextEmbeddings.of_shapes(self.config, shapes, "item_text.")
        return net

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        return [Objective("next item", NextItemCorpus(train.interactions, self.config.length, config.seed))]

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        items, vectors = seen.interactions.histories(users).last(self.config.length), self.net.item_vectors()

        def encode(rows: np.ndarray) -> Tensor:
            sequences = item_sequences(items.take(rows)).to(self.device)
            newest = sequences.mask.sum(1) - 1  # (b,)
            return self.net.states(sequences, vectors)[torch.arange(len(rows)), newest]

        return encode_by_length(self.net, items.lengths, self.config.width, encode), vectors.detach()
