"""A value that is computed from weights, and kept until one of them changes."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class KeptValue(Generic[T]):
    """The latest value, and the state of the weights that it was computed from.

    Fused optimisers do not count their changes of a weight: `free` the value when training goes on.
    """

    def __init__(self) -> None:
        self._latest: tuple[tuple[tuple[int, int], ...], T] | None = None

    def of(self, weights: Iterable[Tensor], compute: Callable[[], T]) -> T:
        """The value for these weights: the kept one if they are as they were, else a new one."""
        state = tuple((weight.data_ptr(), weight._version) for weight in weights)
        latest = self._latest  # other threads may replace it
        if latest is None or latest[0] != state:
            latest = self._latest = None  # free the old one first
            latest = self._latest = (state, compute())
        return latest[1]

    def free(self) -> None:
        """Keep nothing."""
        self._latest = None
