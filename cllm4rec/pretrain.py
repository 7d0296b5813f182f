"""Train a system's first stage into a run folder: cllm4rec pretrain --help"""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cllm4rec.commands import stage_settings
from cllm4rec.commands.entry import log, run
from cllm4rec.commands.flags import CommandLine, started_as
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS, system_config
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder


@dataclass
class PretrainOptions:
    """Flags of pretrain besides those of the system and of training."""

    dataset: str = setting(metavar="FOLDER", help="dataset folder, written by prepare")
    output: str = setting(metavar="FOLDER", help="run folder to write; must be new or empty")
    system: str = setting("cllm4rec", choices=list(SYSTEMS), help="system to train")
    preset: str | None = setting(
        None, metavar="NAME", help="defaults of this preset: paper, the settings of the CLLM4Rec paper"
    )
    dry_run: bool = setting(False, help=stage_settings.DRY_RUN)
    memory: float | None = setting(None, gt=0, metavar="GIB", help=stage_settings.MEMORY)
    audit: bool = setting(False, help=stage_settings.AUDIT)
    resume: bool = setting(
        False,
        help="resume an interrupted run, which needs --output only; start the run if it was never started",
    )


def main(argv: Sequence[str]) -> None:
    with CommandLine("pretrain", argv) as line:
        typed = line.peek(PretrainOptions)
        with stage_settings.training_lock(typed.output, typed.dry_run):
            _pretrain(line, typed)


def _pretrain(line: CommandLine, typed: argparse.Namespace) -> None:
    """The command, while no other process trains in the folder."""
    begun = typed.resume and typed.output and (Path(typed.output) / "run.json").is_file()
    if typed.resume and typed.output and not begun and not typed.dataset:
        raise ValueError(f"there is no run in {typed.output} to resume: give `dataset` to start one")
    folder = RunFolder.open(typed.output) if begun else None
    recorded = {} if folder is None else _recorded_flags(folder, typed)
    before = None if folder is None else stage_settings.recorded_settings(folder, "pretrain")
    system = typed.system or recorded.get("system", "cllm4rec")
    preset = typed.preset or recorded.get("preset")
    config_class = system_config(system)
    classes: list[type[Any]] = [
        PretrainOptions,
        config_class,
        *([TrainConfig] if config_class.training else []),
    ]
    defaults = (
        stage_settings.merged(before) if before else stage_settings.stage_defaults(system, "pretrain", preset)
    )
    options, config, *training = line.parse(
        f"Train {system} into a run folder.", classes, defaults | recorded
    )
    config = stage_settings.with_absolute_paths(config)
    moved: dict[str, str] = {}
    moved_dataset: dict[str, str] = {}
    if folder is not None and before is not None:
        config, moved = stage_settings.moved_folders(before[0], config)
        stage_settings.check_unchanged(before, [config, *training])
        dataset = folder.dataset(typed.dataset)
        moved_dataset = {"dataset": typed.dataset} if typed.dataset else {}
        if stage_settings.has_ended(folder, "pretrain"):
            return
        if folder.ended("finetune"):
            log.info("%s was finetuned from an earlier epoch: finetune it again afterwards", folder.path)
    else:
        dataset = Dataset.load(options.dataset)
    stage_settings.show_audit(options.audit)
    if options.memory is not None and not training:
        raise ValueError(f"`memory` has no effect on {system}, which is fitted in one go: leave it out")
    # Imported once the flags are right: --help and a wrong flag do not wait for torch.
    from cllm4rec.commands.first_stage import FirstStage, dry_run, train

    stage = FirstStage(
        system=system,
        config=config,
        training=training[0] if training else None,
        dataset=dataset,
        dataset_path=options.dataset,
        output=Path(options.output),
        how_to_resume=f"{started_as('pretrain')} --output {shlex.quote(options.output)} --resume"
        + stage_settings.typed_flags(moved_dataset | moved),
        preset=options.preset,
        resumed=before is not None,
        moved=moved,
        memory=options.memory,
    )
    (dry_run if options.dry_run else train)(stage)


def _recorded_flags(folder: RunFolder, typed: argparse.Namespace) -> dict[str, Any]:
    """Flags that the run folder records.

    Raises:
        ValueError: another system or preset was typed.
    """
    description = folder.description
    recorded = {"system": description.system, "preset": description.preset}
    for name, value in recorded.items():
        if (given := getattr(typed, name)) not in (None, value):
            difference = f"of {name} {value}, not" if value else f"without a {name}, not with"
            raise ValueError(f"{folder.path} is a run {difference} {given}: leave `{name}` out to resume it")
    return recorded | {"dataset": description.dataset.path}


if __name__ == "__main__":
    run(main)
