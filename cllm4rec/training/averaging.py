"""Moving averages of the trained weights, which are validated and served in their place."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from cllm4rec.training.resume import Weights

ROWS_AT_ONCE = 1 << 14  # that are exchanged


class AveragedWeights:
    """Exponential moving averages of weights: after step t, average = d average + (1 - d) weight.

    d is the decay, but (1 + t) / (10 + t) in the first steps, where that is less. This warm-up is that of
    TensorFlow's `ExponentialMovingAverage`.

    Attributes:
        decay: in [0, 1); 0 for no averages.
        weights: the trained weights, by name, which the optimiser changes in place.
        averages: those of the dense weights, by name; empty without averages.
    """

    def __init__(self, decay: float, weights: Weights, sparse: Collection[str]) -> None:
        """Averages that begin at the weights.

        Args:
            decay, weights: see the attributes.
            sparse: weights of which a step reads few rows. They are not averaged.
        """
        self.decay, self.weights = decay, weights
        averaged = [name for name in weights if name not in sparse] if decay else []
        self.averages: Weights = {name: weights[name].detach().clone() for name in averaged}

    @torch.no_grad()
    def load(self, saved: Weights) -> None:
        """Restore averages that were saved.

        Raises:
            ValueError: they are not of these weights.
        """
        if saved.keys() != self.averages.keys():
            raise ValueError("averages of other weights")
        for name, average in self.averages.items():
            if saved[name].shape != average.shape:
                raise ValueError(f"the average of {name!r} does not have its shape")
            average.copy_(saved[name])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after a step, numbered from 0, into the averages."""
        if self.averages:
            decay = min(self.decay, (1 + step) / (10 + step))
            current = [self.weights[name] for name in self.averages]
            torch._foreach_lerp_(list(self.averages.values()), current, 1 - decay)

    def in_place(self) -> AbstractContextManager[None]:
        """Within this context the network has the averages as its weights."""
        return exchanged(self.weights, self.averages)


@contextmanager
def exchanged(weights: Weights, others: Weights) -> Iterator[None]:
    """Exchange the values of weights and of others within this context.

    Args:
        weights: of a network, by name.
        others: of all or some of these names.
    """
    _exchange(weights, others)
    try:
        yield
    finally:
        _exchange(weights, others)


@torch.no_grad()
def _exchange(weights: Weights, others: Weights) -> None:
    for name, other in others.items():
        pair = weights[name], other
        blocks = zip(*(each.split(ROWS_AT_ONCE) for each in pair), strict=True) if other.dim() else [pair]
        for here, there in blocks:  # of rows: a large table has no second copy
            kept = here.clone()
            here.copy_(there)
            there.copy_(kept)
