"""What conventional sequential recommenders share: an embedding an item, an encoder of sequences, a softmax over items."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.next_item import NextItemCorpus, next_item_inputs
from cllm4rec.corpora.padding import Batch, batches_by_length
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.base import REMEDY, Shapes
from cllm4rec.models.description import ModelDescription, check_layers, check_shapes
from cllm4rec.models.language.backbone import ID_EMBEDDING_STD
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.sequential.config import SequentialConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import multinomial_nll
from cllm4rec.training.objective import Objective

ITEMS_AT_ONCE = 1 << 15  # padded items of a forward pass when scoring


class SequentialNet(nn.Module):
    """Item embeddings (n_items, d), read by an encoder, and the softmax tied to them."""

    def __init__(self, config: SequentialConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Parameter(torch.randn(n_items, config.width) * ID_EMBEDDING_STD)

    @abstractmethod
    def encode(self, embedded: Tensor, batch: Batch) -> Tensor:
        """States (B, L, d) of sequences (B, L, d), each from the items up to its own."""

    def states(self, batch: Batch) -> Tensor:
        """States (B, L, d) of a batch that `next_item_inputs` gave."""
        embedded = self.items[batch["tokens"]] * self.config.width**0.5
        return self.encode(functional.dropout(embedded, self.config.dropout, self.training), batch)

    def forward(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the next item over the whole catalogue, summed over the places of the batch."""
        states = self.states(batch).flatten(0, 1)[batch["read"]]
        return {objective: multinomial_nll(states, self.items, batch["rows"], batch["targets"])}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the table of items and the encoder."""
        return {
            "items": [self.items],
            "encoder": [p for name, p in self.named_parameters() if name != "items"],
        }

    def diagnostics(self) -> dict[str, float]:
        """Nothing further."""
        return {}


class SequentialRecommender(NeuralRecommender):
    """What comes next, from the items before it, in time order. One stage; users are their histories and nothing else."""

    config_class = SequentialConfig
    config: SequentialConfig
    net: SequentialNet

    @abstractmethod
    def _new_net(self, n_items: int) -> SequentialNet:
        """A network with random weights."""

    def _build(self, train: Dataset, seed: int) -> SequentialNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._new_net(train.n_items)

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> SequentialNet:
        with reading(folder, REMEDY):
            check_layers(self.config.layers, shapes)
            check_shapes(lambda: self._new_net(len(self.item_ids)), shapes)
        return self._new_net(len(self.item_ids))

    def _objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        return [Objective("next item", NextItemCorpus(train.interactions, self.config.length, config.seed))]

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        items = seen.interactions.histories(users).last(self.config.length)
        states = torch.zeros(len(users), self.config.width, device=self.device)
        self.net.eval()
        for rows in batches_by_length(items.lengths, ITEMS_AT_ONCE):
            rows = rows[items.lengths[rows] > 0]
            if len(rows):
                batch = {name: t.to(self.device) for name, t in next_item_inputs(items.take(rows)).items()}
                last = batch["mask"].sum(1) - 1
                states[torch.from_numpy(rows)] = self.net.states(batch)[torch.arange(len(rows)), last].to(
                    torch.float32
                )
        return states, self.net.items.detach()
