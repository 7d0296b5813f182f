"""Systems at the start of their stages, with initial weights, and the objectives of the stages."""

from typing import TypeVar

from accelerate import Accelerator

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.objective import Objective

System = TypeVar("System", bound=NeuralRecommender)


def start_stage(
    system: NeuralRecommender, train: Dataset, stage: str, accelerator: Accelerator | None = None
) -> None:
    """Put a system at the start of a stage without training: the first stage builds the network.

    RSLLM reads the item embeddings of an untrained SASRec.
    """
    if isinstance(system, RSLLM) and system.trained_base is None:
        system.trained_base = SASRec().build(train)
    if stage == system.stages[0]:
        system.build(train, accelerator=accelerator)
    system.stage = stage
    if accelerator is not None:
        system.net.to(accelerator.device)


def untrained(system: System, train: Dataset) -> System:
    """The system after all stages without training: the weights make no difference to the time."""
    for stage in system.stages:
        start_stage(system, train, stage)
    return system


def stage_objectives(
    system: NeuralRecommender, train: Dataset, stage: str, accelerator: Accelerator | None = None
) -> list[Objective]:
    """Objectives of a stage with its default training; the system is put at the start of the stage."""
    start_stage(system, train, stage, accelerator)
    return system.objectives(train, stage, system.config.default_training[stage])
