"""Systems at the start of their stages, with initial weights, and the objectives of the stages."""

from typing import TypeVar

from accelerate import Accelerator

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective

NO_EPOCHS = TrainConfig(epochs=0)
System = TypeVar("System", bound=NeuralRecommender)


def start_stage(
    system: NeuralRecommender, train: Dataset, stage: str, accelerator: Accelerator | None = None
) -> None:
    """Put a system at the start of a stage without training: the first stage builds the network.

    RSLLM reads the item embeddings of an untrained SASRec.
    """
    if isinstance(system, RSLLM) and system.trained_base is None:
        system.trained_base = SASRec().fit(train, None, NO_EPOCHS)
    system.fit(train, None, NO_EPOCHS, stage, accelerator=accelerator)


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
    return system._objectives(train, stage, system.config_class.training[stage])
