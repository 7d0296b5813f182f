"""SASRec: self-attention over the items of a history."""

import torch
from torch import Tensor, nn

from cllm4rec.corpora.padding import Batch
from cllm4rec.models.language.backbone import ID_EMBEDDING_STD
from cllm4rec.models.sequential.base import SequentialNet, SequentialRecommender
from cllm4rec.models.sequential.config import SASRecConfig


class SASRecNet(SequentialNet):
    """Pre-norm Transformer layers with causal attention; a place is counted from the end of the history, so that the
    newest item has the same one in every history."""

    config: SASRecConfig

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.ages = nn.Parameter(torch.randn(config.length, config.width) * ID_EMBEDDING_STD)
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

    def encode(self, embedded: Tensor, batch: Batch) -> Tensor:
        length = embedded.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=embedded.device).triu(
            1
        )  # True: not seen
        # padding stands on the right, where causal attention does not look
        return self.layers(embedded + self.ages[batch["ages"]], mask=causal, is_causal=True)


class SASRec(SequentialRecommender):
    """Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018, with the cross-entropy over the whole catalogue
    in the place of sampled binary losses (Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", 2023)."""

    name = "sasrec"
    config_class = SASRecConfig
    config: SASRecConfig

    def _new_net(self, n_items: int) -> SASRecNet:
        return SASRecNet(self.config, n_items)
