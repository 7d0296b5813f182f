"""Functions of the caller that the training loop calls."""

from collections.abc import Callable
from dataclasses import dataclass

from cllm4rec.training.records import EpochRecord


@dataclass(frozen=True)
class Hooks:
    """Calls of the training loop; the defaults do nothing.

    Attributes:
        on_epoch: called with the record of each epoch.
        on_best: called whenever the weights are the best so far, e.g. to write them. After the first epoch
            these may be the weights before it, which the network has during the call.
        should_stop: asked before and after the steps of an epoch and in each step; one process suffices.
        validate: gives the metric that chooses the weights, higher is better. Without it the last weights
            are kept. `NeuralRecommender.fit_stage` sets it.
        save_first: whether the resume file is written before the first step.
    """

    on_epoch: Callable[[EpochRecord], None] = lambda record: None
    on_best: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False
    validate: Callable[[], float] | None = None
    save_first: bool = False


NO_HOOKS = Hooks()
