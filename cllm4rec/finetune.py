"""Finetune a pretrained run to recommend: cllm4rec finetune --help"""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cllm4rec.commands import stage_settings
from cllm4rec.commands.entry import log, run, say
from cllm4rec.commands.flags import CommandLine, started_as
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load_stage, system_config
from cllm4rec.models.config import SystemConfig
from cllm4rec.settings import setting
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder


@dataclass
class FinetuneOptions:
    """Flags of finetune besides those of the system and of training."""

    run: str = setting(metavar="FOLDER", help="run folder, written by pretrain")
    dataset: str | None = setting(None, metavar="FOLDER", help=stage_settings.DATASET)
    dry_run: bool = setting(False, help=stage_settings.DRY_RUN)
    memory: float | None = setting(None, gt=0, metavar="GIB", help=stage_settings.MEMORY)
    audit: bool = setting(False, help=stage_settings.AUDIT)
    resume: bool = setting(
        False,
        help="resume an interrupted finetuning, which needs --run only; start it if it was never started",
    )


def main(argv: Sequence[str]) -> None:
    with CommandLine("finetune", argv) as line:
        typed = line.peek(FinetuneOptions)
        # Without --run this prints --help, or refuses the flags.
        if typed.run is None:
            defaults = stage_settings.stage_defaults("cllm4rec", "finetune", None)
            classes: list[type[Any]] = [FinetuneOptions, system_config("cllm4rec"), TrainConfig]
            fixed = system_config("cllm4rec").fixed_after_pretraining
            line.parse("Finetune a run to recommend.", classes, defaults, fixed)
        with stage_settings.training_lock(typed.run, typed.dry_run):
            _finetune(line, typed)


def _finetune(line: CommandLine, typed: argparse.Namespace) -> None:
    """The command, while no other process trains in the folder."""
    folder = RunFolder.open(typed.run)
    description = folder.description
    system = description.system
    config_class = system_config(system)
    if "finetune" not in config_class.training:
        say(f"{system} is fitted in one stage, by pretrain: there is nothing to finetune")
        return
    before = stage_settings.recorded_settings(folder, "finetune") if typed.resume else None
    if before is None:
        folder.refuse_interrupted("finetune")
    # Raises if there are no weights.
    folder.stage_folder("pretrain")
    if not folder.ended("pretrain"):
        log.info("pretraining has not ended: finetuning starts from its best epoch so far")
    pretrained, pretraining = stage_settings.settings_of(folder, "pretrain", description.stages["pretrain"])
    defaults = stage_settings.stage_defaults(system, "finetune", description.preset, pretrained)
    defaults |= stage_settings.merged([pretrained]) | {"seed": pretraining.seed}
    if before is not None:
        defaults = stage_settings.merged(before)
    classes: list[type[Any]] = [FinetuneOptions, config_class, TrainConfig]
    fixed = config_class.fixed_after_pretraining
    options, config, training = line.parse(f"Finetune {system} to recommend.", classes, defaults, fixed)
    stage_settings.show_audit(options.audit)
    config, moved = stage_settings.moved_folders(pretrained, stage_settings.with_absolute_paths(config))
    pretrained.check_finetuning(config)
    if before is not None:
        stage_settings.check_unchanged(before, [config, training])
        if stage_settings.has_ended(folder, "finetune"):
            return
    if "sequential" in moved:
        raise ValueError("the run holds its sequential recommender: leave `sequential` out")
    dataset = folder.dataset(options.dataset)
    if options.dataset:
        moved = {"dataset": options.dataset, **moved}
    _train(folder, dataset, config, training, options, before is not None, moved)


def _train(
    folder: RunFolder,
    dataset: Dataset,
    config: SystemConfig,
    training: TrainConfig,
    options: FinetuneOptions,
    resumed: bool,
    moved: Mapping[str, str],
) -> None:
    """Finetune, or print what it would take.

    Args:
        folder: the run.
        dataset: the data.
        config: settings of the system.
        training: settings of training.
        options: whether nothing is trained, and the memory that may be taken.
        resumed: whether finetuning was begun before.
        moved: flag that names a folder of the run which has moved -> that folder.
    """
    from cllm4rec.commands.stages import dry_run_stage, run_stage
    from cllm4rec.models.neural import NeuralRecommender
    from cllm4rec.training.device import make_accelerator

    # Before the model is loaded, as it chooses the GPU of this process.
    accelerator = make_accelerator()
    further = resumed and stage_settings.goes_on(folder, "finetune")
    model = load_stage(folder, "finetune" if further else "pretrain", moved.get("backbone"))
    assert isinstance(model, NeuralRecommender)
    model.set_config(config)
    if options.dry_run:
        dry_run_stage(model, "finetune", dataset, training, accelerator, options.memory)
        return
    if not resumed:
        # A process that was killed at the very end leaves it.
        folder.resume_file("finetune").remove()
        if folder.ended("finetune"):
            log.info("%s: replacing the existing finetuning after the first epoch", folder.path)
    how_to_resume = f"{started_as('finetune')} --run {shlex.quote(str(folder.path))} --resume"
    how_to_resume += stage_settings.typed_flags(moved)
    run_stage(
        model, "finetune", dataset, training, folder, accelerator, how_to_resume, options.memory, further
    )


if __name__ == "__main__":
    run(main)
