"""Train a system's first stage into a run folder: python -m cllm4rec.pretrain --help"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cllm4rec.cli import flag_value, log, parse, run
from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS, system_class
from cllm4rec.models.base import OneStage
from cllm4rec.models.neural import NeuralRecommender, make_accelerator
from cllm4rec.stages import open_run, run_stage, stage_defaults
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig


@dataclass
class PretrainOptions:
    """Flags of pretrain beside those of the system and of training."""

    dataset: str = field(metadata={"help": "folder written by prepare"})
    output: str = field(metadata={"help": "run folder to write; must be new or empty"})
    system: str = field(default="cllm4rec", metadata={"help": "what to train", "choices": list(SYSTEMS)})
    preset: str | None = field(default=None, metadata={"help": "settings of the paper in the place of the defaults"})


def main(argv: Sequence[str]) -> None:
    name = flag_value(argv, "--system", "cllm4rec") or ""
    system = system_class(name)
    neural = issubclass(system, NeuralRecommender)
    classes = [PretrainOptions, system.config_class, *([TrainConfig] if neural else [])]
    defaults = stage_defaults(system, "pretrain", flag_value(argv, "--preset"))
    options, config, *training = parse("pretrain", f"Train {name} into a run folder.", classes, argv, defaults)
    if neural and Path(config.backbone).is_dir():
        config = replace(config, backbone=str(Path(config.backbone).resolve()))
    dataset = Dataset.load(options.dataset)
    about = {"system": name, "dataset": dataset, "dataset_path": options.dataset, "preset": options.preset}
    model = system(config)
    if isinstance(model, NeuralRecommender):
        accelerator = make_accelerator()
        folder = open_run(accelerator, options.output, **about)
        run_stage(model, "pretrain", dataset, training[0], folder, accelerator)
        if not accelerator.is_main_process:
            return
    elif isinstance(model, OneStage):
        folder = RunFolder.create(options.output, **about)
        model.fit(dataset.train, dataset.validation, report=log.info)
        folder.begin_stage("pretrain", system=asdict(model.config))
        folder.keep("pretrain", model.save)
    log.info("the run is in %s", options.output)


if __name__ == "__main__":
    run(main)
