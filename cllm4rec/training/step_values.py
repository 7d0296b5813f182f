"""Values that a training step computes once from the weights, for all its micro-batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class StepValues:
    """Values of a step. Micro-batches add to the gradients of copies, which are then passed on once."""

    def __init__(self) -> None:
        self._values: dict[object, tuple[Tensor, Tensor]] = {}  # key -> value, and its copy

    def get(self, key: object, compute: Callable[[], Tensor]) -> Tensor:
        """The copy of a value, computed when it is first asked for."""
        if key not in self._values:
            value = compute()
            if not value.requires_grad:  # nothing to pass on
                return value
            self._values[key] = value, value.detach().requires_grad_()
        return self._values[key][1]

    def backward(self) -> None:
        """Pass the gradients of the copies on to the weights."""
        while self._values:  # each is freed before the optimiser's step
            _, (value, copy) = self._values.popitem()
            if copy.grad is not None:
                value.backward(copy.grad)


_current: ContextVar[StepValues | None] = ContextVar("step_values", default=None)


@contextmanager
def once_a_step(is_shared: bool) -> Iterator[StepValues]:
    """Within the block, values of `computed_once` are shared, or else computed each time.

    The caller passes the gradients on, by `StepValues.backward`.
    """
    values = StepValues()
    token = _current.set(values if is_shared else None)
    try:
        yield values
    finally:
        _current.reset(token)


def computed_once(key: object, compute: Callable[[], Tensor]) -> Tensor:
    """A value that depends on trained weights alone.

    Args:
        key: of the value, the same for all micro-batches of a step.
        compute: gives it, with a gradient.
    """
    values = _current.get()
    return compute() if values is None or not torch.is_grad_enabled() else values.get(key, compute)
