"""How each stage of a system is trained, as `fit` is told."""

from collections.abc import Mapping
from dataclasses import replace

from cllm4rec.messages import escaped, shorten
from cllm4rec.training.config import TrainConfig

Training = TrainConfig | Mapping[str, TrainConfig]  # of all stages, or stage -> settings


def check_stage(stage: str, stages: tuple[str, ...], name: str) -> None:
    """Raise ValueError unless a stage is one of those of the system of that name."""
    if stage not in stages:
        raise ValueError(f"stage {stage!r} is unknown: {name} has {', '.join(stages)}")


def check_training(training: object) -> None:
    """Raise ValueError unless these are settings of training."""
    if not isinstance(training, TrainConfig):
        raise ValueError(
            f"`training` is {shorten(escaped(repr(training)))}: give a TrainConfig, or a dict of stage -> "
            "TrainConfig"
        )


def stage_configs(
    training: Training | None, defaults: Mapping[str, TrainConfig], name: str
) -> dict[str, TrainConfig]:
    """How each stage is trained, by stage.

    Args:
        training: settings for all stages, or stage -> settings. Other stages have their defaults, and later
            ones take the seed of the first.
        defaults: settings of each stage of the system, in the order of training.
        name: of the system, for errors.

    Raises:
        ValueError: a stage is unknown, or its settings are something else.
    """
    stages = tuple(defaults)
    if training is None:
        training = {}
    if not isinstance(training, Mapping):
        check_training(training)
        return dict.fromkeys(stages, training)
    for stage, config in training.items():
        check_stage(stage, stages, name)
        check_training(config)
    first, *later = stages
    configs = {first: training.get(first, defaults[first])}
    for stage in later:
        configs[stage] = training.get(stage, replace(defaults[stage], seed=configs[first].seed))
    return configs
