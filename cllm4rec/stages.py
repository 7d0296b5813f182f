"""What pretrain and finetune share: the defaults of a stage, and running it into a run folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from cllm4rec.cli import log
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import EpochRecord


def stage_defaults(system: type[Recommender], stage: str, preset: str | None) -> dict[str, Any]:
    """The defaults of a system's stage, and what a preset puts in their place.

    Raises:
        ValueError: the system has no preset of that name.
    """
    presets = system.presets if issubclass(system, NeuralRecommender) else {}
    if preset is not None and preset not in presets:
        raise ValueError(f"{system.name} has no preset {preset!r}: it has {', '.join(presets) or 'none'}")
    if not issubclass(system, NeuralRecommender):
        return {}
    chosen = presets[preset] if preset else {"system": {}, stage: {}}
    return asdict(system.train_configs[stage]) | chosen["system"] | chosen[stage]


def open_run(accelerator: Accelerator, output: str, **about: Any) -> RunFolder:
    """Make the run folder on the main process, and have it on all."""
    if accelerator.is_main_process:
        RunFolder.create(output, **about)
    accelerator.wait_for_everyone()
    return RunFolder(Path(output))


def run_stage(
    model: NeuralRecommender, stage: str, dataset: Dataset, training: TrainConfig, folder: RunFolder, accelerator: Accelerator
) -> None:
    """Train one stage; the main process writes each epoch's record and the best weights into the run folder."""
    main = accelerator.is_main_process
    settings = {"training": asdict(training), "system": asdict(model.config), "n_processes": accelerator.num_processes}
    begun = False  # what an earlier try left stays until there are new weights

    def on_epoch(record: EpochRecord) -> None:
        if main:
            folder.record(stage, record)
            log.info("%s %s", stage, record)

    def on_best() -> None:
        nonlocal begun
        if main and not begun:
            folder.begin_stage(stage, **settings)
            begun = True
        if main:
            folder.keep(stage, model.save)

    if not len(dataset.validation.interactions):
        log.info("the dataset has no validation events: %s keeps the weights of its last epoch", stage)
    model.fit(dataset.train, dataset.validation, training, stage, on_epoch, on_best, accelerator)
    accelerator.wait_for_everyone()
