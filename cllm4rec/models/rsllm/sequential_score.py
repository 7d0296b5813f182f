"""The score of the sequential recommender, added to that of C_user."""

import logging
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.fitted import FittedModule
from cllm4rec.models.inner_product import InnerProductRecommender
from cllm4rec.models.validation import shared_validation
from cllm4rec.training.records import VALIDATION_METRIC

log = logging.getLogger("cllm4rec")

WEIGHTS = (0.0, *(2.0**power for power in range(-3, 10)))  # candidates; 0: without the score


class SequentialScore(FittedModule):
    """w x the inner product of the sequential recommender, added to that of C_user.

    Attributes:
        weight: w, (1,); chosen on validation events after stage 2. A w that is learned with the network would
            be too large: the sequential recommender was trained on the same targets.
    """

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1))

    def join(self, of_model: tuple[Tensor, Tensor], of_base: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Vectors whose inner products are the weighted sum of two others.

        Args:
            of_model: user states (B, d) and item vectors (n_items, d) of C_user.
            of_base: those of the sequential recommender, (B, e) and (n_items, e).

        Returns:
            User states (B, d + e) and item vectors (n_items, d + e), float32.
        """
        (states, items), (further_states, further_items) = of_model, of_base
        scaled = further_states.to(states.device, torch.float32) * float(self.weight)
        return (
            torch.cat([states.float(), scaled], dim=1),
            torch.cat([items.float(), further_items.to(items.device, torch.float32)], dim=1),
        )


class HasScore(Protocol):
    """A network that may have the score."""

    sequential_score: SequentialScore | None


def chosen_score(
    model: InnerProductRecommender, net: HasScore, dataset: Dataset, accelerator: Accelerator
) -> SequentialScore | None:
    """The score with the weight that is best on validation events, of equal ones the smallest.

    Args:
        model: to validate; it reads `sequential_score` of its network.
        net: its trained network.
        dataset: with validation events.
        accelerator: of the processes, which all validate.

    Returns:
        None if the best weight is 0.
    """
    quality, score = {}, SequentialScore()
    net.sequential_score = score
    try:
        with model.keeping_vectors():
            for weight in WEIGHTS:
                score.weight.fill_(weight)
                quality[weight] = shared_validation(model, dataset, accelerator)
    finally:
        net.sequential_score = None
    best = max(quality, key=quality.__getitem__)
    score.weight.fill_(best)
    if accelerator.is_main_process:
        log.info(
            "score of the sequential system: weight %g: validation %s %.4f, without it %.4f",
            *(best, VALIDATION_METRIC, quality[best], quality[0.0]),
        )
    return score if best else None
