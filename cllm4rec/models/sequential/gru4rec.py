"""GRU4Rec: a gated recurrent network over the items of a history."""

import torch
from torch import Tensor, nn

from cllm4rec.corpora.next_item import ItemSequences
from cllm4rec.models.sequential.base import SequentialNet, SequentialRecommender
from cllm4rec.models.sequential.config import SequentialConfig


class GRU4RecNet(SequentialNet):
    """Gated recurrent layers, then a linear layer and a normalisation."""

    def __init__(self, config: SequentialConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        dropout = config.dropout if config.layers > 1 else 0.0  # between layers
        self.recurrent = nn.GRU(config.width, config.width, config.layers, batch_first=True, dropout=dropout)
        self.output = nn.Sequential(nn.Linear(config.width, config.width), nn.LayerNorm(config.width))

    def encode(self, embedded: Tensor, sequences: ItemSequences) -> Tensor:
        # Under autocast a GRU on CUDA computes in float16, whatever dtype is asked for.
        with torch.autocast(embedded.device.type, enabled=False):
            hidden, _ = self.recurrent(embedded.to(self.items.dtype))  # (B, L, d)
        states: Tensor = self.output(hidden)
        return states


class GRU4Rec(SequentialRecommender):
    """GRU4Rec with the cross-entropy over the whole catalogue.

    Source: Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Ranking with Recurrent Neural
    Networks", 2016.
    """

    name = "gru4rec"

    def _new_net(self, n_items: int) -> GRU4RecNet:
        return GRU4RecNet(self.config, n_items)
