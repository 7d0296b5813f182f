"""Finetune a pretrained run to recommend: python -m cllm4rec.finetune --help"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from cllm4rec.commands.entry import log, run, say
from cllm4rec.commands.flags import flag_given, flag_value, parse
from cllm4rec.commands.options import (
    DRY_RUN,
    as_flags,
    check_unchanged,
    moved_folders,
    settings_before,
    stage_defaults,
    training_lock,
    with_whole_paths,
)
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import load_stage, system_config
from cllm4rec.models.config import SystemConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_folder import RunFolder


@dataclass
class FinetuneOptions:
    """Flags of finetune beside those of the system and of training."""

    run: str = field(metadata={"help": "run folder written by pretrain"})
    dataset: str | None = field(default=None, metadata={"help": "the run's dataset, if it has moved"})
    dry_run: bool = field(default=False, metadata=DRY_RUN)
    resume: bool = field(
        default=False,
        metadata={"help": "resume an interrupted finetuning; then only --run is needed. Without one, begin"},
    )


def main(argv: Sequence[str]) -> None:
    path = flag_value(argv, "--run")
    if path is None:  # --help, or an error
        classes = [FinetuneOptions, system_config("cllm4rec"), TrainConfig]
        parse(
            "finetune",
            "Finetune a run to recommend.",
            classes,
            argv,
            stage_defaults("cllm4rec", "finetune", None),
        )
    with training_lock(argv, path or ""):
        _main(argv, path or "")


def _main(argv: Sequence[str], path: str) -> None:
    """The command, while no other process trains in the folder."""
    folder = RunFolder.open(path)
    description = folder.description
    name = description.system
    settings = system_config(name)
    if "finetune" not in settings.training:
        say(f"{name} is fitted in one stage, by pretrain: there is nothing to finetune")
        return
    resumed = settings_before(folder, "finetune") if flag_given(argv, "--resume") else None
    if resumed is None:
        folder.refuse_interrupted("finetune")
    folder.stage_folder("pretrain")  # there are weights
    if not folder.ended("pretrain"):
        log.info("pretraining has not ended: finetuning goes on from its best epoch so far")
    pretrained = description.stages["pretrain"]
    before, seed = pretrained.system, (pretrained.training or {})["seed"]
    defaults = resumed or stage_defaults(name, "finetune", description.preset) | before | {"seed": seed}
    classes = [FinetuneOptions, settings, TrainConfig]
    options, config, training = parse("finetune", f"Finetune {name} to recommend.", classes, argv, defaults)
    config, moved = moved_folders(before, with_whole_paths(config))
    for setting in settings.fixed_after_pretraining:
        if getattr(config, setting) != before[setting]:
            raise ValueError(
                f"--{setting} was settled by pretraining ({before[setting]}): pretrain anew to change it"
            )
    if resumed is not None:
        check_unchanged(resumed, config, training)
        if folder.ended("finetune"):
            folder.resume_file("finetune").remove()  # left by a process that was killed in its last moment
            log.info("%s: finetuning has ended, there is nothing to resume", path)
            return
    if "sequential" in moved:
        raise ValueError("the run holds its sequential recommender: leave --sequential out")
    dataset = folder.dataset(options.dataset)
    _train(folder, dataset, config, training, options.dry_run, resumed is not None, moved.get("backbone"))


def _train(
    folder: RunFolder,
    dataset: Dataset,
    config: SystemConfig,
    training: TrainConfig,
    dry_run: bool,
    resumed: bool,
    backbone: str | None,
) -> None:
    """Finetune, or say what it would take; `backbone`: where that of the run is, if it has moved."""
    from cllm4rec.commands.stages import dry_run_stage, run_stage
    from cllm4rec.models.neural import NeuralRecommender
    from cllm4rec.training.device import make_accelerator

    accelerator = make_accelerator()  # chooses the process's own GPU, onto which the model is loaded
    model = load_stage(folder, "pretrain", backbone)
    assert isinstance(model, NeuralRecommender)
    model.set_config(config)
    if dry_run:
        dry_run_stage(model, "finetune", dataset, training, accelerator)
        return
    if not resumed:
        folder.resume_file("finetune").remove()  # left by a process killed in its last moment
        if folder.ended("finetune"):
            log.info(
                "%s: the finetuning that is there is replaced after the first epoch of this one", folder.path
            )
    again = as_flags({} if backbone is None else {"backbone": backbone})
    how_to_resume = f"python -m cllm4rec.finetune --run {shlex.quote(str(folder.path))} --resume{again}"
    run_stage(model, "finetune", dataset, training, folder, accelerator, how_to_resume)


if __name__ == "__main__":
    run(main)
