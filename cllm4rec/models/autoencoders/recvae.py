"""RecVAE: a composite prior that remembers the last epoch's posterior, and alternating training."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.history_sets import HistorySetBatch, HistorySetCorpus, HistorySetOptions, HistorySets
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.autoencoders.base import (
    AutoencoderNet,
    AutoencoderRecommender,
    HistoryLayer,
    linear,
    sampled,
)
from cllm4rec.models.autoencoders.config import RecVAEConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective

N_HIDDEN = 4  # hidden layers after the first
STANDARD, OLD_POSTERIOR, WIDE = 3 / 20, 3 / 4, 1 / 10  # weights of the components of the prior
WIDE_LOG_VARIANCE = 10.0
OLD = "old_encoder"


class DenseEncoder(nn.Module):
    """Mean and log-variance of latent vectors from histories, by densely connected layers.

    Each hidden layer adds the outputs of all layers before it, then come swish and layer norm.
    """

    def __init__(self, config: RecVAEConfig, n_items: int) -> None:
        super().__init__()
        self.input = HistoryLayer(n_items, config.width)
        self.hidden = nn.ModuleList([linear(config.width, config.width) for _ in range(N_HIDDEN)])
        self.norms = nn.ModuleList([nn.LayerNorm(config.width) for _ in range(N_HIDDEN + 1)])
        self.latent = linear(config.width, 2 * config.latent_width)

    def forward(self, sets: HistorySets, dropout: float) -> tuple[Tensor, Tensor]:
        """Float32 (B, latent_width) each. In training mode, items are left out at the rate `dropout`."""
        first, *norms = self.norms
        output: Tensor = first(functional.silu(self.input(sets, dropout)))
        earlier = output  # sum of the outputs so far
        for layer, norm in zip(self.hidden, norms, strict=True):
            output = norm(functional.silu(layer(output) + earlier))
            earlier = earlier + output
        mean, log_variance = self.latent(output).float().chunk(2, dim=1)
        return mean, log_variance


class RecVAENet(AutoencoderNet):
    """An encoder, and a linear decoder.

    Attributes:
        old_encoder: the encoder of the epoch before, whose posterior is part of the prior. It exists in
            training only.
    """

    config: RecVAEConfig

    def __init__(self, config: RecVAEConfig, n_items: int) -> None:
        super().__init__(config)
        self.encoder = DenseEncoder(config, n_items)
        self.output = linear(config.latent_width, n_items)
        self.old_encoder: DenseEncoder | None = None

    def remember_encoder(self) -> None:
        """Make the encoder as it is now the old one."""
        if self.old_encoder is None:
            # Its weights count as trained, so that the resume file holds them. They get no gradient.
            self.old_encoder = copy.deepcopy(self.encoder)
        self.old_encoder.load_state_dict(self.encoder.state_dict())

    def states(self, sets: HistorySets) -> Tensor:
        mean, _ = self.encoder(sets, 0.0)
        return mean

    def forward(self, objective: str, batch: HistorySetBatch) -> dict[str, Tensor]:
        """The objective "encoder" trains the encoder alone, "decoder" the decoder alone.

        Returns:
            Negative log-likelihood of the histories, summed. For the encoder also the weighted KL divergence
            from the prior, from one draw of each latent vector.
        """
        if objective == "decoder":
            # The steps of the decoder leave the encoder as the epoch's steps have made it.
            self.remember_encoder()
            with torch.no_grad():
                latent = sampled(*self.encoder(batch, 0.0))
            return {objective: self.reconstruction(latent, batch)}
        mean, log_variance = self.encoder(batch, self.config.dropout)
        latent = sampled(mean, log_variance)
        divergence = log_density(latent, mean, log_variance) - self._log_prior(latent, batch)
        weights = self.config.gamma * batch.lengths  # (B,)
        return {
            objective: self.reconstruction(latent, batch, frozen=True),
            "KL": (weights * divergence.sum(1)).sum(),
        }

    def _log_prior(self, latent: Tensor, sets: HistorySets) -> Tensor:
        """Log-density of latent vectors under the composite prior, (B, latent_width)."""
        assert self.old_encoder is not None, "networks are made for training by RecVAE._build"
        with torch.no_grad():
            old_mean, old_log_variance = self.old_encoder(sets, 0.0)
        return composite_log_prior(latent, old_mean, old_log_variance)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: encoder and decoder."""
        return {"encoder": [*self.encoder.parameters()], "decoder": [*self.output.parameters()]}


def log_density(values: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-density of values under normal distributions, element by element."""
    return -0.5 * (log_variance + math.log(2 * math.pi) + (values - mean).square() / log_variance.exp())


def composite_log_prior(latent: Tensor, old_mean: Tensor, old_log_variance: Tensor) -> Tensor:
    """Log-density (B, d) of the prior of RecVAE, of each dimension by itself as in the authors' code.

    It is a mixture of the standard normal distribution, the old posterior, and a wide normal one.
    """
    zero = torch.zeros_like(latent)
    components = [
        math.log(STANDARD) + log_density(latent, zero, zero),
        math.log(OLD_POSTERIOR) + log_density(latent, old_mean, old_log_variance),
        math.log(WIDE) + log_density(latent, zero, zero + WIDE_LOG_VARIANCE),
    ]
    return torch.logsumexp(torch.stack(components), dim=0)


class RecVAE(AutoencoderRecommender):
    """RecVAE. An epoch trains the encoder in several passes, then the decoder in one on whole histories.

    Source: Shenbin, Alekseev, Tutubalina, Malykh and Nikolenko, "RecVAE: a New Variational Autoencoder for
        Top-N Recommendations with Implicit Feedback", 2020.
    """

    name = "recvae"
    config_class = RecVAEConfig
    config: RecVAEConfig

    def _new_net(self, n_items: int) -> RecVAENet:
        return RecVAENet(self.config, n_items)

    def _build(self, train: Dataset, seed: int) -> AutoencoderNet:
        net = super()._build(train, seed)
        assert isinstance(net, RecVAENet)
        net.remember_encoder()
        return net

    def _stored(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._trained().items() if not name.startswith(f"{OLD}.")}

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        passes = {"encoder": self.config.encoder_passes, "decoder": 1}
        return [
            Objective(
                name, HistorySetCorpus(train.interactions, HistorySetOptions(passes=n, seed=config.seed))
            )
            for name, n in passes.items()
        ]
