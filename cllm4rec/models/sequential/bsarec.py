"""BSARec: self-attention and a filter of low and high frequencies over the positions of a history."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.next_item import ItemSequences, NextItemCorpus, PrefixCorpus
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.sequential.base import SequentialNet, SequentialRecommender
from cllm4rec.models.sequential.config import BSARecConfig


def low_pass(length: int, n_kept: int, device: torch.device) -> Tensor:
    """The linear map (L, L) of a signal of length L to its `n_kept` lowest frequencies."""
    spectrum = torch.fft.rfft(torch.eye(length, device=device), dim=0, norm="ortho")  # (L // 2 + 1, L)
    spectrum[n_kept:] = 0
    return torch.fft.irfft(spectrum, n=length, dim=0, norm="ortho")


class FrequencyFilter(nn.Module):
    """LN(x + dropout(low + b^2 (x - low))), with low the lowest frequencies of x over its positions.

    Attributes:
        high_weight: b, (d,), learned.
    """

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        self.frequencies = config.frequencies
        self.high_weight = nn.Parameter(torch.randn(config.width))
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(config.width)

    def forward(self, windows: Tensor, n_last: int) -> Tensor:
        """The last positions (B, n_last, d) of filtered windows (B, L, d)."""
        length = windows.shape[1]
        last = windows[:, length - n_last :]
        with torch.autocast(windows.device.type, enabled=False):
            x = windows.float()
            low = low_pass(length, self.frequencies, x.device)[length - n_last :] @ x  # (B, n_last, d)
            filtered = low + self.high_weight**2 * (last.float() - low)
        hidden: Tensor = self.norm(last + self.dropout(filtered))
        return hidden


class SelfAttention(nn.Module):
    """LN(x + dropout(attention(x))): each position reads itself and the items before it."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.inputs = nn.Linear(config.width, 3 * config.width)  # of queries, keys and values
        self.output = nn.Linear(config.width, config.width)
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(config.width)

    def forward(self, windows: Tensor, readable: Tensor, n_last: int) -> Tensor:
        """The last positions (B, n_last, d) of windows (B, L, d) after attention.

        Args:
            windows: (B, L, d).
            readable: bool (B, 1, L, L), True where the position of the row reads that of the column.
            n_last: positions to compute.
        """
        first, width = windows.shape[1] - n_last, windows.shape[2]
        last, weight, bias = windows[:, first:], self.inputs.weight, self.inputs.bias
        query = functional.linear(last, weight[:width], bias[:width])
        key, value = functional.linear(windows, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, readable[:, :, first:]
        )  # (B, heads, n_last, d / heads)
        hidden: Tensor = self.norm(last + self.dropout(self.output(mixed.transpose(1, 2).flatten(2))))
        return hidden


class BSARecLayer(nn.Module):
    """A weighted sum of the filter and of attention, then a feed-forward network; all post-norm."""

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        self.filter_share = config.filter_share
        self.filter, self.attention = FrequencyFilter(config), SelfAttention(config)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, 4 * config.width),
            nn.GELU(),
            nn.Linear(4 * config.width, config.width),
            nn.Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, windows: Tensor, readable: Tensor, n_last: int) -> Tensor:
        """The last positions (B, n_last, d) of the next windows; arguments as of `SelfAttention`."""
        filtered, attended = self.filter(windows, n_last), self.attention(windows, readable, n_last)
        mixed = self.filter_share * filtered + (1 - self.filter_share) * attended
        hidden: Tensor = self.norm(mixed + self.feed_forward(mixed))
        return hidden


class BSARecNet(SequentialNet):
    """Histories as windows of `length` positions, the newest item last, zeros before the oldest.

    The filter mixes all positions of a window. So only the state of the newest item is free of later items,
    and padding is part of what is read: a window is always as long as `length`. The last layer computes that
    state alone.
    """

    config: BSARecConfig

    def __init__(self, config: BSARecConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.position_embeddings = nn.Parameter(torch.randn(config.length, config.width) * ID_EMBEDDING_STD)
        self.norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(BSARecLayer(config) for _ in range(config.layers))

    def read_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return np.where(lengths > 0, self.config.length, 0)

    def embed(self, sequences: ItemSequences, vectors: Tensor) -> Tensor:
        return vectors[sequences.tokens]

    def encode(self, embedded: Tensor, sequences: ItemSequences) -> Tensor:
        n, length = len(embedded), self.config.length
        columns = length - 1 - sequences.positions_from_end  # (B, L') of the items in the windows
        row, position = sequences.mask.nonzero(as_tuple=True)
        column = columns[row, position]
        windows = embedded.new_zeros(n, length, self.config.width)
        windows = windows.index_put((row, column), embedded[row, position])
        is_item = torch.zeros(n, length, dtype=torch.bool, device=embedded.device)
        is_item[row, column] = True
        hidden = functional.dropout(
            self.norm(windows + self.position_embeddings), self.config.dropout, self.training
        )
        causal = torch.ones(length, length, dtype=torch.bool, device=embedded.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=embedded.device)  # padding reads itself
        readable = ((causal & is_item[:, None]) | itself)[:, None]  # (B, 1, L, L)
        for i, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, readable, 1 if i == len(self.layers) else length)
        # The state of the newest item stands for all positions.
        return hidden.expand(-1, embedded.shape[1], -1)


class BSARec(SequentialRecommender):
    """BSARec with the cross-entropy over the whole catalogue, every prefix of a history an example.

    Padding changes its scores: the frequencies are those of a window of `length` positions, and the
    positions before the oldest item are part of it.

    Source: Shin, Choi, Wi and Park, "An Attentive Inductive Bias for Sequential Recommendation beyond the
        Self-Attention", 2024.
    """

    name = "bsarec"
    config_class = BSARecConfig
    config: BSARecConfig

    def _new_net(self, n_items: int) -> BSARecNet:
        return BSARecNet(self.config, n_items)

    def _corpus(self, train: Interactions, seed: int) -> NextItemCorpus:
        return PrefixCorpus(train, self.config.length, seed)
