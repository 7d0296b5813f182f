"""SASRec: self-attention over the items of a history."""

import torch
from torch import Tensor, nn

from cllm4rec.corpora.next_item import ItemSequences
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.sequential.base import SequentialNet, SequentialRecommender
from cllm4rec.models.sequential.config import SASRecConfig


class SASRecNet(SequentialNet):
    """Pre-norm Transformer layers with causal attention.

    Positions are counted from the end: the newest item of each history has position 0.
    """

    config: SASRecConfig

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.position_embeddings = nn.Parameter(torch.randn(config.length, config.width) * ID_EMBEDDING_STD)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            config.width,
            config.dropout,
            "relu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False
        )

    def encode(self, embedded: Tensor, sequences: ItemSequences) -> Tensor:
        length = embedded.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool, device=embedded.device).triu(1)  # (L, L)
        # Padding needs no mask: it is on the right, which causal attention does not see.
        return self.layers(
            embedded + self.position_embeddings[sequences.positions_from_end], mask=hidden, is_causal=True
        )


class SASRec(SequentialRecommender):
    """SASRec with the cross-entropy over the whole catalogue instead of a sampled binary loss.

    Sources: Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018; Klenitskiy and Vasilev,
        "Turning Dross Into Gold Loss", 2023.
    """

    name = "sasrec"
    config_class = SASRecConfig
    config: SASRecConfig

    def _new_net(self, n_items: int) -> SASRecNet:
        return SASRecNet(self.config, n_items)
