"""Bytes of tensors that a computation holds at its peak, counted tensor by tensor on any device."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made in its context, until they are freed.

    Tensors that share a storage count once, gradients and what autograd keeps included. Work space that a
    kernel frees before it returns is not seen.

    Attributes:
        live: bytes now.
        peak: most bytes at a time.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        """
        Args:
            held: tensors that exist before, such as weights; they and their views do not count.
        """
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in held:
            self._watch(tensor, 0)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        result = function(*arguments, **(settings or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor, None)
        return result

    def _watch(self, tensor: Tensor, n_bytes: int | None) -> None:
        """Count the storage of a tensor until it is freed, with its own size if none is given."""
        if tensor.is_sparse:
            for part in (tensor._indices(), tensor._values()):
                self._watch(part, n_bytes)
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if n_bytes is None else n_bytes
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed(_: Any) -> None:
            self._known.pop(key, None)
            self.live -= size

        self._known[key] = weakref.ref(storage, freed)
