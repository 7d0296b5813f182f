"""Settings of the variational autoencoders."""

from dataclasses import dataclass
from typing import ClassVar

from cllm4rec.models.config import WIDEST, SystemConfig
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig


@dataclass(frozen=True)
class AutoencoderConfig(SystemConfig):
    """Settings that the autoencoders share."""

    width: int = setting(600, ge=1, lt=WIDEST, help="dimensions of hidden layers")
    latent_width: int = setting(200, ge=1, lt=WIDEST, help="dimensions of the latent vector of a user")
    dropout: float = setting(
        0.5, ge=0, lt=1, help="share of a history's items that a training step leaves out of the input"
    )


@dataclass(frozen=True)
class MultVAEConfig(AutoencoderConfig):
    """Settings of Mult-VAE."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=200, batch_size=500, patience=20, validate_every=2)
    }

    beta: float = setting(0.2, ge=0, help="largest weight of the KL divergence from the prior")
    annealing: float = setting(
        0.5,
        ge=0,
        le=1,
        help="share of the epochs over which the weight of the KL divergence rises linearly from 0 to beta",
    )


@dataclass(frozen=True)
class RecVAEConfig(AutoencoderConfig):
    """Settings of RecVAE."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=200, batch_size=500, learning_rate=5e-4, patience=20, validate_every=2)
    }

    gamma: float = setting(
        0.005, ge=0, help="weight of the KL divergence from the prior, for each item of a history"
    )
    encoder_passes: int = setting(
        3,
        ge=1,
        lt=1_025,
        help="passes per epoch that train the encoder, before one that trains the decoder",
    )
