"""Autoencoders of histories: the layers at both ends, and the scores of a user from the history alone."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.history_sets import HistorySetBatch, HistorySets, history_sets
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.autoencoders.config import AutoencoderConfig
from cllm4rec.models.description import ModelDescription, Shapes, check_shapes
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.losses import multinomial_nll

BIAS_STD = 0.001  # of initial biases, as in the code of Mult-VAE


class HistoryLayer(nn.Module):
    """A linear layer whose inputs are histories as unit vectors over the items (B, n_items), never built.

    Row u has 1 / sqrt(n_u) at each of its n_u items. The layer is the weighted sum of its items' embeddings.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, width)))
        self.bias = nn.Parameter(torch.randn(width) * BIAS_STD)

    def forward(self, sets: HistorySets, dropout: float) -> Tensor:
        """Outputs (B, width). In training mode, items are left out at the rate `dropout`."""
        weights = sets.lengths.clamp(min=1).to(self.weight.dtype).rsqrt()[sets.item_rows]
        weights = functional.dropout(weights, dropout, self.training)
        starts = sets.lengths.cumsum(0) - sets.lengths
        summed = functional.embedding_bag(
            sets.items, self.weight, starts, mode="sum", per_sample_weights=weights
        )
        return summed + self.bias


class AutoencoderNet(nn.Module):
    """A network that encodes a history, and decodes it by a softmax over all items.

    Attributes:
        output: last layer of the decoder, of one row an item.
    """

    output: nn.Linear

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def states(self, sets: HistorySets) -> Tensor:
        """States (B, d) that `output` turns into scores, from the means of the latent vectors."""

    def reconstruction(self, states: Tensor, batch: HistorySetBatch, frozen: bool = False) -> Tensor:
        """Negative log-likelihood of the targets by the output layer, summed.

        Args:
            states: (B, d), as `states` gives them.
            batch: has the targets.
            frozen: whether the output layer gets no gradient.
        """
        weight: Tensor = self.output.weight
        bias: Tensor = self.output.bias
        if frozen:
            weight, bias = weight.detach(), bias.detach()
        return multinomial_nll(states, weight, batch.target_rows, batch.target_items, bias=bias)

    def diagnostics(self) -> dict[str, float]:
        """No further values."""
        return {}


def linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    """A linear layer, initialised as in the code of Mult-VAE."""
    layer = nn.Linear(n_inputs, n_outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=BIAS_STD)
    return layer


def sampled(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A draw from each normal distribution, differentiable by its parameters (Kingma and Welling, 2014)."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


class AutoencoderRecommender(NeuralRecommender):
    """Scores are those of the decoder. A user is nothing but a history, as a set."""

    config: AutoencoderConfig
    net: AutoencoderNet

    @abstractmethod
    def _new_net(self, n_items: int) -> AutoencoderNet:
        """A network with random weights."""

    def _build(self, train: Dataset, seed: int) -> AutoencoderNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._new_net(train.n_items)

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> AutoencoderNet:
        with reading(folder, REMEDY):
            check_shapes(lambda: self._new_net(len(self.item_ids)), shapes)
        return self._new_net(len(self.item_ids))

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        sets = history_sets(seen.interactions.histories(users)).to(self.device)
        states = self.net.eval().states(sets).float()
        # the bias of an item is one more dimension, in which every state is 1
        states = torch.cat([states, states.new_ones(len(states), 1)], dim=1)
        output = self.net.output
        return states, torch.cat([output.weight, output.bias[:, None]], dim=1)

    def _item_vectors(self) -> Tensor:
        return self.net.output.weight
