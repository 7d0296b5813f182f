"""Settings of a stage before it runs: defaults, presets, those of an earlier run. Imports no torch."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cllm4rec.commands.entry import log
from cllm4rec.commands.flags import flag_of
from cllm4rec.files.damage import reading
from cllm4rec.files.schema import checked
from cllm4rec.models import SYSTEMS, system_config
from cllm4rec.models.config import SystemConfig
from cllm4rec.models.language.config import built_in_shape
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.launched import is_main_process
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder

# Help texts of flags that several commands have.
DATASET = "dataset folder of the run, if it has moved"
VERIFY = "compare the whole weights with their SHA-256; by default only their size and header are compared"
BACKBONE = (
    "folder, .gguf file or name of the run's frozen backbone, if it has moved; it is compared with its hashes"
)
AUDIT = "print what each part of the system learned from; by default one line"
DRY_RUN = "time a few steps, print parameters, memory, steps and time, and write nothing"
MEMORY = (
    "memory in GiB that a process may take, of the GPU if there is one; a batch is computed in parts that "
    "fit; by default half of what is free, on a CPU about 3.25 GiB (docs/running.md)"
)

# Settings that may name a folder which a trained model still needs.
FOLDERS = ("backbone", "sequential")
# Settings that may name a file or folder.
PLACES = (*FOLDERS, "encoder", "item_vectors")


def stage_defaults(
    system: str, stage: str, preset: str | None, config: SystemConfig | None = None
) -> dict[str, Any]:
    """The defaults of a system's stage, with those of a preset in their place.

    Args:
        config: settings of the system from an earlier stage, on which the defaults may depend.

    Raises:
        ValueError: there is no system, or no preset, of that name.
    """
    config_class = system_config(system)
    if preset is not None and preset not in config_class.presets:
        if not config_class.presets:
            raise ValueError(f"system {system} has no presets: leave `preset` out")
        raise ValueError(f"{system} has no preset {preset!r}: it has {', '.join(config_class.presets)}")
    if not config_class.training:
        return {}
    chosen = config_class.presets[preset] if preset else {"system": {}, stage: {}}
    training = config_class.training if config is None else config.default_training
    return asdict(training[stage]) | chosen["system"] | chosen[stage]


def training_lock(folder: str | Path | None, dry_run: bool) -> AbstractContextManager[None]:
    """The lock of a run folder while a command trains in it, held by the main process; none for a dry run.

    Raises:
        ValueError: another process trains in this folder; the message names it.
    """
    unlocked = not folder or dry_run or not is_main_process()
    return nullcontext() if unlocked else RunFolder.lock(str(folder))


def show_audit(is_detailed: bool) -> None:
    """Let the audit of training log its details, or its result alone."""
    logging.getLogger("cllm4rec.audit").setLevel(logging.DEBUG if is_detailed else logging.INFO)


def recorded_settings(folder: RunFolder, stage: str) -> list[Any] | None:
    """Settings of an unfinished or ended stage, as `settings_of` gives them; None if it was never begun."""
    record = folder.description.settings_of(stage)
    return None if record is None else settings_of(folder, stage, record)


def settings_of(folder: RunFolder, stage: str, record: StageSettings) -> list[Any]:
    """The settings in a stage's record: those of the system and, if it is trained in steps, of training.

    Raises:
        ValueError: run.json is damaged.
    """
    place = f"settings of {stage}"
    with reading(folder.path / "run.json", "train again"):
        settings = [system_config(folder.description.system).from_record(record.system, place)]
        return (
            settings if record.training is None else [*settings, checked(record.training, TrainConfig, place)]
        )


def merged(settings: Sequence[Any]) -> dict[str, Any]:
    """Name -> value of several groups of settings, as defaults of flags."""
    return {name: value for group in settings for name, value in asdict(group).items()}


def check_unchanged(before: Sequence[Any], now: Sequence[Any]) -> None:
    """Raise ValueError if a setting differs from its value when the stage began."""
    recorded = merged(before)
    for name, value in merged(now).items():
        if recorded[name] != value:
            raise ValueError(
                f"`{name}` is {value} and was {recorded[name]} when training began: a run resumes with its "
                "first settings; leave the flag out"
            )


def has_ended(folder: RunFolder, stage: str) -> bool:
    """Whether a stage to resume has ended. If so, say so, and remove the state that a killed process left."""
    if not folder.ended(stage):
        return False
    folder.resume_file(stage).remove()
    log.info("%s: %s has ended, there is nothing to resume", folder.path, stage)
    return True


def goes_on(folder: RunFolder, stage: str) -> bool:
    """Whether a stage is under way from weights of its own, which `cllm4rec extend` wrote."""
    description = folder.description
    return stage in description.under_way and stage not in description.stages and folder.has_weights(stage)


def is_reserved(name: str) -> bool:
    """Whether a name is that of a system or of a backbone built here, and never a folder."""
    return name in SYSTEMS or built_in_shape(name) is not None


def moved_folders(before: SystemConfig, config: SystemConfig) -> tuple[SystemConfig, dict[str, str]]:
    """The settings with the folders of `before`, and those of their folders that have moved since.

    Returns:
        The settings; setting -> new folder. Whether it holds the same files is checked when it is read.
    """
    old, new = asdict(before), asdict(config)
    moved = {
        name: new[name]
        for name in FOLDERS
        if name in new and new[name] != old[name] and not (is_reserved(new[name]) or is_reserved(old[name]))
    }
    return replace(config, **{name: old[name] for name in moved}), moved


def typed_flags(settings: Mapping[str, str]) -> str:
    """Settings as they are typed after a command, with a space before each."""
    return "".join(f" {flag_of(name)} {shlex.quote(value)}" for name, value in settings.items())


def with_absolute_paths(config: SystemConfig) -> SystemConfig:
    """The settings with absolute paths of what exists; other values, and reserved names, stay."""
    values = {name: value for name, value in asdict(config).items() if name in PLACES and value is not None}
    folders = {
        name: value for name, value in values.items() if not is_reserved(value) and Path(value).exists()
    }
    return replace(config, **{name: str(Path(value).resolve()) for name, value in folders.items()})
