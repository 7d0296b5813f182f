"""The settings of every system: what `--help` shows and model.json holds. Imports no library that runs them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT
from cllm4rec.settings import check_settings
from cllm4rec.training.config import TrainConfig

WIDEST = 65_537  # above any width of vectors
ID_EMBEDDING_STD = 0.02  # standard deviation of ID embeddings at initialisation


@dataclass(frozen=True)
class SystemConfig:
    """What a system is. Fields become flags; None is a value that fitting chooses."""

    training: ClassVar[
        dict[str, TrainConfig]
    ] = {}  # stage -> how it is trained; none where `pretrain` fits in one go
    presets: ClassVar[
        dict[str, dict[str, dict[str, Any]]]
    ] = {}  # name -> settings of the system and of each stage
    fixed_after_pretraining: ClassVar[tuple[str, ...]] = ()  # settings that the first stage settles

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        check_settings(self)
