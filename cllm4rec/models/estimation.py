"""Time and memory that training a stage of a system would take."""

from functools import partial

from accelerate import Accelerator

from cllm4rec.data.audit import auditing
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.validation import validation_seconds
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.dry_run import DryRun, dry_run


def estimated_stage(
    model: NeuralRecommender,
    dataset: Dataset,
    stage: str,
    config: TrainConfig,
    accelerator: Accelerator,
    memory: float | None = None,
) -> DryRun:
    """Time and memory that `fit_stage` with these arguments would take. The weights of the model change.

    Raises:
        LeakError, ValueError: as in `fit_stage`.
    """
    title = f"dry run of {model.stage_title(stage)}"
    with auditing(dataset, title, accelerator.is_main_process):
        before = model.stage
        model._start(dataset, stage, config, accelerator)
        validate = None
        if model._is_validated(dataset, stage):
            validate = partial(validation_seconds, model, dataset, accelerator)
        objectives = model.objectives(dataset.train, stage, config)
        n_first = model._n_first_validations(dataset, before, config)
        return dry_run(model.net, objectives, config, accelerator, validate, n_first, memory)
