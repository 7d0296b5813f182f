"""Settings of the sequential recommenders."""

from dataclasses import dataclass, field
from typing import ClassVar

from cllm4rec.models.config import WIDEST, SystemConfig
from cllm4rec.training.config import TrainConfig


@dataclass(frozen=True)
class SequentialConfig(SystemConfig):
    """What a sequential recommender is."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=200, batch_size=128, patience=10, validate_every=3)
    }

    width: int = field(
        default=64,
        metadata={"ge": 1, "lt": WIDEST, "help": "width of an item's embedding and of the states"},
    )
    layers: int = field(default=2, metadata={"ge": 1, "lt": 1_025, "help": "layers of the encoder"})
    dropout: float = field(
        default=0.5, metadata={"ge": 0, "lt": 1, "help": "share of the numbers dropped in training"}
    )
    length: int = field(
        default=50,
        metadata={
            "ge": 1,
            "lt": 1_000_001,
            "help": "most items of a history that are read, the newest",
        },
    )


@dataclass(frozen=True)
class SASRecConfig(SequentialConfig):
    """Settings of SASRec."""

    heads: int = field(default=2, metadata={"ge": 1, "help": "attention heads; they divide the width"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}: it has to divide the width, {self.width}")
