"""Train a system's first stage into a run folder: python -m cllm4rec.pretrain --help"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cllm4rec.cli import flag_given, flag_value, log, parse, run
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS, system_class
from cllm4rec.models.base import OneStage
from cllm4rec.models.neural import NeuralRecommender, make_accelerator
from cllm4rec.stages import check_unchanged, finished, interrupted_settings, open_run, run_stage, stage_defaults
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig


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


def main(argv: Sequence[str]) -> None:
    output = flag_value(argv, "--output") or ""
    interrupted: dict[str, Any] | None = None
    noted: dict[str, Any] = {}
    if flag_given(argv, "--resume") and (Path(output) / "run.json").is_file():
        folder = RunFolder.open(output)
        if finished(folder, "pretrain"):
            log.info("%s: pretraining has ended, there is nothing to resume", output)
            return
        interrupted = interrupted_settings(folder, "pretrain")
        about = folder.about
        noted = {"dataset": about["dataset"]["path"], "system": about["system"], "preset": about["preset"]}
    name = flag_value(argv, "--system", noted.get("system", "cllm4rec")) or ""
    if interrupted is not None and name != noted["system"]:
        raise ValueError(f"{output} is a run of {noted['system']}: leave --system out to go on with it")
    system = system_class(name)
    neural = issubclass(system, NeuralRecommender)
    classes = [PretrainOptions, system.config_class, *([TrainConfig] if neural else [])]
    defaults = interrupted or stage_defaults(system, "pretrain", flag_value(argv, "--preset", noted.get("preset")))
    options, config, *training = parse("pretrain", f"Train {name} into a run folder.", classes, argv, defaults | noted)
    if neural and Path(config.backbone).is_dir():
        config = replace(config, backbone=str(Path(config.backbone).resolve()))
    model = system(config)
    if interrupted is not None:
        check_unchanged(interrupted, config, *training)
        folder = RunFolder.open(output)
        dataset = folder.dataset(options.dataset)
    else:
        dataset = Dataset.load(options.dataset)
    about = {"system": name, "dataset": dataset, "dataset_path": options.dataset, "preset": options.preset}
    if isinstance(model, NeuralRecommender):
        accelerator = make_accelerator()
        if interrupted is None:
            folder = open_run(accelerator, options.output, **about)
        resume = f"python -m cllm4rec.pretrain --output {shlex.quote(options.output)} --resume"
        run_stage(model, "pretrain", dataset, training[0], folder, accelerator, resume)
        if not accelerator.is_main_process:
            return
    elif isinstance(model, OneStage):
        folder = RunFolder.create(options.output, **about)
        model.fit(dataset.train, dataset.validation, report=log.info, seen=dataset.seen)
        folder.begin_stage("pretrain", system=asdict(model.config))
        folder.keep("pretrain", model.save)
    log.info("the run is in %s", options.output)


if __name__ == "__main__":
    run(main)
