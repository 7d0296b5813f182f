"""Settings of the systems that pool the vectors of a history's items. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar

from cllm4rec.models.config import WIDEST
from cllm4rec.models.item_vectors.config import ItemTextConfig, item_text_setting
from cllm4rec.models.readings.config import TextVectorConfig
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig


@dataclass(frozen=True)
class BagConfig(ItemTextConfig):
    """Settings of the bag model."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(
            epochs=200,
            batch_size=256,
            learning_rate=3e-4,
            patience=3,
            averaging=0.99,
        )
    }

    item_text: str = item_text_setting("auto")
    width: int = setting(128, ge=1, lt=WIDEST, help="dimensions of the item vectors")
    mask_share: float = setting(
        0.5, gt=0, lt=1, help="share of a history that is masked, and predicted from the rest"
    )


@dataclass(frozen=True)
class AlphaRecConfig(TextVectorConfig):
    """Settings of AlphaRec."""

    training: ClassVar[dict[str, TrainConfig]] = {
        "pretrain": TrainConfig(epochs=200, batch_size=256, patience=20, validate_every=2)
    }

    width: int = setting(64, ge=1, lt=WIDEST, help="dimensions of the vectors of users and items")
    hidden_width: int = setting(
        256, ge=1, lt=WIDEST, help="dimensions of the hidden layer of the map of text vectors"
    )
    layers: int = setting(2, ge=0, lt=1_025, help="layers of the graph convolution")
    temperature: float = setting(0.15, gt=0, help="divides the cosines of users and items in the loss")
    negatives: int = setting(
        1024, ge=1, help="negative items per step, which all users share: a sample, drawn by popularity"
    )
