"""Train a system's first stage into a run folder: python -m cllm4rec.pretrain --help"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from cllm4rec.models import SYSTEMS, load, system_class, system_config
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder

if TYPE_CHECKING:  # imported once the flags are right: --help and a mistyped flag do not wait for torch
    from cllm4rec.models.base import Recommender
    from cllm4rec.models.neural import NeuralRecommender


@dataclass
class PretrainOptions:
    """Flags of pretrain beside those of the system and of training."""

    dataset: str = field(metadata={"help": "folder written by prepare"})
    output: str = field(metadata={"help": "run folder to write; must be new or empty"})
    system: str = field(default="cllm4rec", metadata={"help": "what to train", "choices": list(SYSTEMS)})
    preset: str | None = field(
        default=None, metadata={"help": "settings of the paper in the place of the defaults"}
    )
    dry_run: bool = field(default=False, metadata=DRY_RUN)
    resume: bool = field(
        default=False,
        metadata={
            "help": "resume an interrupted run; then only --output is needed. Without an interrupted run, begin"
        },
    )


def main(argv: Sequence[str], how_to_resume: str | None = None) -> None:
    """The command. `how_to_resume`: the command to resume with, if this is a part of another training."""
    output = flag_value(argv, "--output") or ""
    with training_lock(argv, output):
        _main(argv, output, how_to_resume)


def _main(argv: Sequence[str], output: str, how_to_resume: str | None) -> None:
    """The command, while no other process trains in the folder."""
    before: dict[str, Any] | None = None
    noted: dict[str, Any] = {}
    if flag_given(argv, "--resume") and (Path(output) / "run.json").is_file():
        folder = RunFolder.open(output)
        before, description = settings_before(folder, "pretrain"), folder.description
        noted = {
            "dataset": description.dataset.path,
            "system": description.system,
            "preset": description.preset,
        }
        for what in ("system", "preset"):
            if (given := flag_value(argv, f"--{what}", noted[what])) != noted[what]:
                raise ValueError(
                    f"{output} is a run of {what} {noted[what]}, not {given}: leave --{what} out to go on with it"
                )
    name = flag_value(argv, "--system", noted.get("system", "cllm4rec")) or ""
    described = system_config(name)
    classes = [PretrainOptions, described, *([TrainConfig] if described.training else [])]
    defaults = before or stage_defaults(name, "pretrain", flag_value(argv, "--preset", noted.get("preset")))
    options, config, *training = parse(
        "pretrain", f"Train {name} into a run folder.", classes, argv, defaults | noted
    )
    config = with_whole_paths(config)
    moved: dict[str, str] = {}
    if before is not None:
        config, moved = moved_folders(before, config)
        check_unchanged(before, config, *training)
        dataset = folder.dataset(flag_value(argv, "--dataset"))
        if folder.ended("pretrain"):
            folder.resume_file("pretrain").remove()  # left by a process that was killed in its last moment
            log.info("%s: pretraining has ended, there is nothing to resume", output)
            return
        if folder.ended("finetune"):
            log.info("%s was finetuned from an earlier epoch: finetune it again afterwards", output)
    else:
        dataset = Dataset.load(options.dataset)
    model = system_class(name)(config)
    model.moved = moved
    if options.dry_run:
        _dry_run(model, dataset, training)
        return
    settings = StageSettings(asdict(config), asdict(training[0]) if training else None)
    about = {"system": name, "dataset": dataset, "dataset_path": options.dataset, "preset": options.preset}
    again = (
        how_to_resume
        or f"python -m cllm4rec.pretrain --output {shlex.quote(output)} --resume{as_flags(moved)}"
    )
    about |= {"under_way": {"pretrain": settings}}
    _train(model, dataset, training, output, before is not None, about, again)


def _train(
    model: "Recommender",
    dataset: Dataset,
    training: list[TrainConfig],
    output: str,
    resumed: bool,
    about: dict[str, Any],
    how_to_resume: str,
) -> None:
    """Train the stage into a new run folder, or into the one that is there."""
    from cllm4rec.commands.stages import open_run, run_stage
    from cllm4rec.models.neural import NeuralRecommender
    from cllm4rec.models.one_stage import OneStageRecommender
    from cllm4rec.training.device import make_accelerator

    if isinstance(model, NeuralRecommender):
        accelerator = make_accelerator()
        _check(model, dataset, RunFolder(Path(output)) if resumed else None)
        folder = RunFolder.open(output) if resumed else open_run(accelerator, output, **about)
        if model.base_system is not None:
            model.trained_base = _first(
                model.base_system, training[0], Path(output), about["dataset_path"], resumed, how_to_resume
            )
        run_stage(model, "pretrain", dataset, training[0], folder, accelerator, how_to_resume)
    elif isinstance(model, OneStageRecommender):
        folder = RunFolder.open(output) if resumed else RunFolder.create(output, **about)
        model.fit(dataset.train, dataset.validation, report=log.info, seen=dataset.seen)
        folder.begin_stage("pretrain", StageSettings(asdict(model.config)))
        model.save(folder.path / "pretrain")
        folder.end_stage("pretrain")
        log.info("the run is in %s", output)


def _check(model: "NeuralRecommender", dataset: Dataset, resumed: RunFolder | None) -> None:
    """Refuse what cannot be trained; of a run that is resumed, say by which hash its backbone is known."""
    try:
        model.check(dataset.train)
    except ValueError as error:
        description = resumed and resumed.resume_file("pretrain").describe()
        if not description or "backbone" not in description.about:
            raise
        raise ValueError(
            f"{error}; the run was begun with weights of SHA-256 {description.about['backbone']}"
        ) from error


def _dry_run(model: "Recommender", dataset: Dataset, training: list[TrainConfig]) -> None:
    """Say what training would take."""
    from cllm4rec.commands.stages import dry_run_stage
    from cllm4rec.models.neural import NeuralRecommender
    from cllm4rec.training.device import make_accelerator

    if not isinstance(model, NeuralRecommender):
        say(f"{model.name} is fitted in one go: there are no steps to time")
        return
    model.check(dataset.train)
    accelerator = make_accelerator()
    if model.base_system is not None:
        first = system_class(model.base_system)()
        assert isinstance(first, NeuralRecommender)
        dry_run_stage(first, "pretrain", dataset, first.config_class.training["pretrain"], accelerator)
        say("\nand then, on it:\n")
        model.trained_base = first
    dry_run_stage(model, "pretrain", dataset, training[0], accelerator)


def _first(
    name: str, training: TrainConfig, output: Path, dataset: str, resumed: bool, how_to_resume: str
) -> "Recommender":
    """The system that another stands on, trained into a run folder of its own within that of the other, or found there."""
    flags = ["--system", name, "--dataset", dataset, "--output", str(output / name)]
    if (output / name / "run.json").is_file():
        there = RunFolder.open(output / name)
        if not resumed:
            there.refuse_interrupted("pretrain")
        before = settings_before(there, "pretrain") or {"seed": training.seed}
        if before["seed"] != training.seed:
            raise ValueError(
                f"{there.path} was trained with --seed {before['seed']}, not {training.seed}: remove it, or give that seed"
            )
        flags += ["--resume"]
    else:
        flags += ["--seed", str(training.seed)]
        flags += [] if training.max_minutes is None else ["--max-minutes", str(training.max_minutes)]
    main(flags, how_to_resume)
    return load(output / name)


if __name__ == "__main__":
    run(main)
