"""Settings of the sequential recommenders."""

from dataclasses import dataclass
from typing import ClassVar

from cllm4rec.models.config import WIDEST
from cllm4rec.models.item_vectors.config import ItemTextConfig
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig


@dataclass(frozen=True)
class SequentialConfig(ItemTextConfig):
    """Settings of the sequence encoder."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=200, batch_size=128, patience=10, validate_every=3)
    }

    width: int = setting(64, ge=1, lt=WIDEST, help="dimensions of item embeddings and hidden states")
    layers: int = setting(2, ge=1, lt=1_025, help="layers of the encoder")
    dropout: float = setting(0.5, ge=0, lt=1, help="dropout rate")
    length: int = setting(50, ge=1, lt=1_000_001, help="maximum history length in items; the newest are kept")


@dataclass(frozen=True)
class SASRecConfig(SequentialConfig):
    """Settings of SASRec."""

    heads: int = setting(2, ge=1, help="attention heads; a divisor of the width")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"`heads` is {self.heads}: it has to divide `width`, {self.width}")


@dataclass(frozen=True)
class BSARecConfig(SASRecConfig):
    """Settings of BSARec."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=60, batch_size=256, learning_rate=1e-3, patience=10, validate_every=2)
    }

    heads: int = setting(1, ge=1, help="attention heads; a divisor of the width")
    frequencies: int = setting(5, ge=1, help="frequencies of the low-pass filter, the lowest ones")
    filter_share: float = setting(
        0.7, ge=0, le=1, help="weight of the frequency filter; attention has the rest"
    )
