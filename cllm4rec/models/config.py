"""Settings that all systems share: flags of the commands, and `config` in model.json. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from cllm4rec.files.schema import STRICT, checked
from cllm4rec.settings import check_settings
from cllm4rec.training.config import TrainConfig

# Exclusive upper bound of embedding widths.
WIDEST = 65_537
# Standard deviation of ID embeddings at initialisation.
ID_EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class SystemConfig:
    """Settings of a system. None is a value that fitting chooses on validation events.

    Attributes:
        training: stage -> settings of its training, where those of the system are not known yet; empty for a
            system that is fitted in one go.
        presets: name -> {"system": its settings, stage: settings of that stage's training}.
        fixed_after_pretraining: settings that finetuning may not change.
        added_settings: setting added since format 6 of model.json -> value for what earlier versions did.
    """

    training: ClassVar[dict[str, TrainConfig]] = {}
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {}
    fixed_after_pretraining: ClassVar[tuple[str, ...]] = ()
    added_settings: ClassVar[dict[str, Any]] = {}

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def from_record(cls, values: Mapping[str, Any], name: str) -> Self:
        """The settings in model.json or run.json. Those that it lacks are of `added_settings`.

        Args:
            values: setting -> value.
            name: of the place in the file, for errors.

        Raises:
            ValueError: a value is unknown or of another type. The message names it.
        """
        settings: Self = checked(cls.added_settings | dict(values), cls, name)
        return settings

    @property
    def default_training(self) -> dict[str, TrainConfig]:
        """Stage -> settings of its training, if none are given, for these settings of the system.

        Those of the first stage are those of `training`.
        """
        return self.training

    @classmethod
    def base_training(cls, dependent: TrainConfig) -> TrainConfig:
        """Training as the base system of another: the defaults, with seed and time limit of the other."""
        return replace(cls.training["pretrain"], seed=dependent.seed, max_minutes=dependent.max_minutes)

    def check_finetuning(self, config: Self) -> None:
        """Refuse settings for finetuning that differ from these, of pretraining, where they may not.

        Raises:
            ValueError: names the setting and its value in pretraining.
        """
        for name in self.fixed_after_pretraining:
            if getattr(config, name) != getattr(self, name):
                raise ValueError(
                    f"`{name}` was fixed by pretraining ({getattr(self, name)}): pretrain again to change it"
                )
