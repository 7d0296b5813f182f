"""Settings of a stage before it runs: defaults, presets, what a run began with. Imports no library that trains."""

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cllm4rec.commands.entry import is_main_process
from cllm4rec.commands.flags import flag_given
from cllm4rec.files.damage import reading
from cllm4rec.files.schema import checked
from cllm4rec.models import SYSTEMS, system_config
from cllm4rec.models.config import SystemConfig
from cllm4rec.models.language.config import BUILT_IN
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder

VERIFY = {"help": "compare the weights with their SHA-256 whole, not only their size and header"}
FOLDERS = ("backbone", "sequential")  # settings that may name a folder
BACKBONE_FLAG = {
    "help": "folder of the run's frozen backbone, if it has moved; weights, configuration and tokenizer are checked by hash"
}
DRY_RUN = {
    "help": "say what it would take, from a few timed steps (parameters, memory, steps, time), and write nothing"
}


def stage_defaults(system: str, stage: str, preset: str | None) -> dict[str, Any]:
    """The defaults of a system's stage, and what a preset puts in their place.

    Raises:
        ValueError: there is no system, or no preset, of that name.
    """
    settings = system_config(system)
    if preset is not None and preset not in settings.presets:
        raise ValueError(f"{system} has no preset {preset!r}: it has {', '.join(settings.presets) or 'none'}")
    if not settings.training:
        return {}
    chosen = settings.presets[preset] if preset else {"system": {}, stage: {}}
    return asdict(settings.training[stage]) | chosen["system"] | chosen[stage]


def training_lock(argv: Sequence[str], folder: str) -> AbstractContextManager[None]:
    """The lock of a run folder while a command trains in it; held by the main process, and not needed for a dry run.

    Raises:
        ValueError: another process trains in this folder; the message names it.
    """
    reads = not folder or flag_given(argv, "--dry-run") or not is_main_process()
    return nullcontext() if reads else RunFolder.lock(folder)


def settings_before(folder: RunFolder, stage: str) -> dict[str, Any] | None:
    """The settings of a stage that is under way or has ended; None if it was never begun."""
    description = folder.description
    settings = description.settings_of(stage)
    if settings is None:
        return None
    with reading(folder.path / "run.json", "train again"):
        checked(settings.system, system_config(description.system), f"settings of {stage}")
        if settings.training is not None:
            checked(settings.training, TrainConfig, f"settings of {stage}")
    return settings.system | (settings.training or {})


def check_unchanged(before: dict[str, Any], *now: Any) -> None:
    """Raise ValueError if a setting differs from what it was when a stage began."""
    for name, value in (pair for config in now for pair in asdict(config).items()):
        if before[name] != value:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value} and was {before[name]} when training began: a run goes on as it "
                "began; leave the flag out"
            )


def moved_folders(before: dict[str, Any], config: SystemConfig) -> tuple[SystemConfig, dict[str, str]]:
    """The settings as they were when training began, and the folders among them that are elsewhere now.

    Returns:
        The settings, and name of the setting -> folder; whether it holds the same is checked when it is read.
    """
    words, now = {*BUILT_IN, *SYSTEMS}, asdict(config)
    moved = {name: now[name] for name in FOLDERS if name in now and not {now[name], before[name]} & words}
    moved = {name: folder for name, folder in moved.items() if folder != before[name]}
    return replace(config, **{name: before[name] for name in moved}), moved


def as_flags(settings: dict[str, str]) -> str:
    """Settings as they are typed behind a command."""
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in settings.items())


def with_whole_paths(config: SystemConfig) -> SystemConfig:
    """The settings with whole paths of folders, so that these are found from elsewhere too; any other name, and the words that
    settings know, as they are."""
    words, found = {*BUILT_IN, *SYSTEMS}, set(FOLDERS) & set(asdict(config))
    given = {name: getattr(config, name) for name in found}
    return replace(
        config,
        **{
            name: str(Path(one).resolve())
            for name, one in given.items()
            if one not in words and Path(one).is_dir()
        },
    )
