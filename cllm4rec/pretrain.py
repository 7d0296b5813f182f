"""Train a system's first stage into a run folder: python -m cllm4rec.pretrain --help"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm4rec.cli import flag_given, flag_value, log, parse, run
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS, load, system_class, system_settings
from cllm4rec.models.configs import BUILT_IN
from cllm4rec.options import check_unchanged, settings_before, stage_defaults
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig

if TYPE_CHECKING:  # imported once the flags are right: --help and a mistyped flag do not wait for torch
    from accelerate import Accelerator

    from cllm4rec.models.base import Recommender
    from cllm4rec.models.neural import NeuralRecommender


@dataclass
class PretrainOptions:
    """Flags of pretrain beside those of the system and of training."""

    dataset: str = field(metadata={"help": "folder written by prepare"})
    output: str = field(metadata={"help": "run folder to write; must be new or empty"})
    system: str = field(default="cllm4rec", metadata={"help": "what to train", "choices": list(SYSTEMS)})
    preset: str | None = field(default=None, metadata={"help": "settings of the paper in the place of the defaults"})
    resume: bool = field(
        default=False,
        metadata={"help": "go on with an interrupted run; no other flag but --output is needed then. Without one, begin"},
    )


def main(argv: Sequence[str], how_to_resume: str | None = None) -> None:
    """The command. `how_to_resume`: what to say of a stop, where this is a part of another training."""
    output = flag_value(argv, "--output") or ""
    before: dict[str, Any] | None = None
    noted: dict[str, Any] = {}
    if flag_given(argv, "--resume") and (Path(output) / "run.json").is_file():
        folder = RunFolder.open(output)
        before, about = settings_before(folder, "pretrain"), folder.about
        noted = {"dataset": about["dataset"]["path"], "system": about["system"], "preset": about["preset"]}
        for what in ("system", "preset"):
            if (given := flag_value(argv, f"--{what}", noted[what])) != noted[what]:
                raise ValueError(f"{output} is a run of {what} {noted[what]}, not {given}: leave --{what} out to go on with it")
    name = flag_value(argv, "--system", noted.get("system", "cllm4rec")) or ""
    described = system_settings(name)
    classes = [PretrainOptions, described, *([TrainConfig] if described.training else [])]
    defaults = before or stage_defaults(name, "pretrain", flag_value(argv, "--preset", noted.get("preset")))
    options, config, *training = parse("pretrain", f"Train {name} into a run folder.", classes, argv, defaults | noted)
    folders = {"backbone", "sequential"} & set(asdict(config))  # settings that may be folders
    config = replace(config, **{name: whole_path(getattr(config, name)) for name in folders})
    if before is not None:
        check_unchanged(before, config, *training)
        dataset = folder.dataset(flag_value(argv, "--dataset"))
        if folder.ended("pretrain"):
            log.info("%s: pretraining has ended, there is nothing to resume", output)
            return
        if folder.ended("finetune"):
            log.info("%s was finetuned from an earlier epoch: finetune it again afterwards", output)
    else:
        dataset = Dataset.load(options.dataset)
    settings = {"system": asdict(config), **({"training": asdict(training[0])} if training else {})}
    about = {"system": name, "dataset": dataset, "dataset_path": options.dataset, "preset": options.preset}
    again = how_to_resume or f"python -m cllm4rec.pretrain --output {shlex.quote(output)} --resume"
    about |= {"under_way": {"pretrain": settings}}
    _train(system_class(name)(config), dataset, training, output, before is not None, about, again)


def whole_path(name: str) -> str:
    """The whole path of a folder, so that it is found from elsewhere too; any other name, and the words that settings
    know, as they are."""
    return str(Path(name).resolve()) if name not in {*BUILT_IN, *SYSTEMS} and Path(name).is_dir() else name


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
    from cllm4rec.models.base import OneStage
    from cllm4rec.models.neural import NeuralRecommender, make_accelerator
    from cllm4rec.stages import open_run, run_stage

    if isinstance(model, NeuralRecommender):
        accelerator = make_accelerator()
        folder = RunFolder.open(output) if resumed else open_run(accelerator, output, **about)
        if model.first is not None:
            _train_first(model, model.first, training[0], output, about["dataset_path"], accelerator, how_to_resume)
        run_stage(model, "pretrain", dataset, training[0], folder, accelerator, how_to_resume)
    elif isinstance(model, OneStage):
        folder = RunFolder.open(output) if resumed else RunFolder.create(output, **about)
        model.fit(dataset.train, dataset.validation, report=log.info, seen=dataset.seen)
        folder.begin_stage("pretrain", system=asdict(model.config))
        folder.keep("pretrain", model.save)
        folder.end_stage("pretrain")
        log.info("the run is in %s", output)


def _train_first(
    model: "NeuralRecommender",
    name: str,
    training: TrainConfig,
    output: str,
    dataset: str,
    accelerator: "Accelerator",
    again: str,
) -> None:
    """Train the system that another stands on, into a run folder of its own within that of the other."""
    own = Path(output) / name
    there = (own / "run.json").is_file()
    accelerator.wait_for_everyone()  # before a process makes what others look for
    seeded = [] if there else ["--seed", str(training.seed)]
    resume = ["--resume"] if there else []
    main(["--system", name, "--dataset", dataset, "--output", str(own), *seeded, *resume], again)
    model.given_first = load(own)


if __name__ == "__main__":
    run(main)
