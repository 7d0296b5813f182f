"""GRU4Rec: a gated recurrent network over the items of a history."""

import torch
from torch import Tensor, nn

from cllm4rec.corpora.padding import Batch
from cllm4rec.models.sequential.base import SequentialNet, SequentialRecommender
from cllm4rec.models.sequential.config import SequentialConfig


class GRU4RecNet(SequentialNet):
    """Gated recurrent layers and a linear layer back to the width of the items."""

    def __init__(self, config: SequentialConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        between = config.dropout if config.layers > 1 else 0.0
        self.recurrent = nn.GRU(config.width, config.width, config.layers, batch_first=True, dropout=between)
        self.output = nn.Sequential(nn.Linear(config.width, config.width), nn.LayerNorm(config.width))

    def encode(self, embedded: Tensor, batch: Batch) -> Tensor:
        with torch.autocast(
            embedded.device.type, enabled=False
        ):  # on CUDA it would compute in float16, whatever is asked for
            read, _ = self.recurrent(embedded.to(self.items.dtype))
        states: Tensor = self.output(read)
        return states


class GRU4Rec(SequentialRecommender):
    """Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Recommendations with Recurrent Neural Networks", 2016, with
    the cross-entropy over the whole catalogue."""

    name = "gru4rec"

    def _new_net(self, n_items: int) -> GRU4RecNet:
        return GRU4RecNet(self.config, n_items)
