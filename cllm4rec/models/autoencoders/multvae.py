"""Mult-VAE: a variational autoencoder of histories with a multinomial likelihood."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cllm4rec.corpora.history_sets import HistorySetBatch, HistorySetCorpus, HistorySetOptions, HistorySets
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.autoencoders.base import (
    AutoencoderNet,
    AutoencoderRecommender,
    HistoryLayer,
    linear,
    sampled,
)
from cllm4rec.models.autoencoders.config import MultVAEConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective


@dataclass(frozen=True, kw_only=True)
class AnnealedBatch(HistorySetBatch):
    """Histories, and the weight of the KL divergence.

    Attributes:
        beta: float32 scalar.
    """

    beta: Tensor


class AnnealedCorpus(HistorySetCorpus):
    """Histories; the weight of the KL divergence rises linearly from 0 in the first epoch to `beta`.

    Args:
        train: the training events.
        seed: of the order of the users.
        beta: the weight after the rise.
        rise: epochs of the rise.
    """

    def __init__(self, train: Interactions, seed: int, beta: float, rise: float) -> None:
        super().__init__(train, HistorySetOptions(seed=seed))
        self.beta, self.rise = beta, rise

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> AnnealedBatch:
        beta = self.beta * min(1.0, epoch / self.rise) if self.rise else self.beta
        return AnnealedBatch(**vars(super().batch(examples, epoch, step)), beta=torch.tensor(beta))


class MultVAENet(AutoencoderNet):
    """Items -> width -> latent_width -> width -> items, with tanh between."""

    config: MultVAEConfig

    def __init__(self, config: MultVAEConfig, n_items: int) -> None:
        super().__init__(config)
        self.input = HistoryLayer(n_items, config.width)
        self.latent = linear(config.width, 2 * config.latent_width)
        self.hidden = linear(config.latent_width, config.width)
        self.output = linear(config.width, n_items)

    def posterior(self, sets: HistorySets) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent vectors, float32 (B, latent_width) each."""
        encoded = self.latent(self.input(sets, self.config.dropout).tanh()).float()
        mean, log_variance = encoded.chunk(2, dim=1)
        return mean, log_variance

    def decoded(self, latent: Tensor) -> Tensor:
        """States (B, width) of latent vectors."""
        states: Tensor = self.hidden(latent).tanh()
        return states

    def states(self, sets: HistorySets) -> Tensor:
        return self.decoded(self.posterior(sets)[0])

    def forward(self, objective: str, batch: AnnealedBatch) -> dict[str, Tensor]:
        """Negative log-likelihood of the histories, and the weighted KL divergence, summed."""
        mean, log_variance = self.posterior(batch)
        nll = self.reconstruction(self.decoded(sampled(mean, log_variance)), batch)
        return {objective: nll, "KL": batch.beta * standard_normal_divergence(mean, log_variance)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: encoder and decoder."""
        return {
            "encoder": [*self.input.parameters(), *self.latent.parameters()],
            "decoder": [*self.hidden.parameters(), *self.output.parameters()],
        }


def standard_normal_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of diagonal normal distributions (B, d) from the standard normal one, summed."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum()


class MultVAE(AutoencoderRecommender):
    """Mult-VAE. The weight of the KL divergence is annealed over epochs instead of a fixed number of steps.

    Source: Liang, Krishnan, Hoffman and Jebara, "Variational Autoencoders for Collaborative Filtering", 2018.
    """

    name = "multvae"
    config_class = MultVAEConfig
    config: MultVAEConfig

    def _new_net(self, n_items: int) -> MultVAENet:
        return MultVAENet(self.config, n_items)

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        rise = self.config.annealing * config.epochs
        corpus = AnnealedCorpus(train.interactions, config.seed, self.config.beta, rise)
        return [Objective("history", corpus)]
