"""Sums over the steps of an epoch: losses, gradient norms, tokens and time."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from cllm4rec.corpora.base import Batch
from cllm4rec.files.schema import STRICT


@dataclass
class Totals:
    """Sums over the steps of an epoch and all processes, as numbers that JSON holds exactly.

    Attributes:
        losses: name of a loss term -> its sum, number of targets.
        norms: name of a parameter group -> sum of its gradient norms, number of steps.
        tokens: read so far, padding not included.
        seconds: of training.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    losses: dict[str, tuple[float, int]] = field(default_factory=dict)
    norms: dict[str, tuple[float, int]] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0


class Meter:
    """Sums of this process over an epoch, kept on the device: reading them would wait for it in each step.

    Args:
        net: the network; its parameter groups name the gradient norms.
        earlier: sums over all processes from before training was interrupted within this epoch.
        accelerator: gathers the sums of the processes.
    """

    def __init__(self, net: Any, earlier: Totals, accelerator: Accelerator) -> None:
        self.net, self.accelerator, self.seconds = net, accelerator, earlier.seconds
        resumes = accelerator.is_main_process  # the others begin at zero: earlier sums count once
        self.losses = self._on_device(earlier.losses if resumes else {})
        self.norms = self._on_device(earlier.norms)
        self.tokens = earlier.tokens if resumes else 0

    def _on_device(self, sums: dict[str, tuple[float, int]]) -> dict[str, tuple[Tensor, int]]:
        device = self.accelerator.device
        return {
            name: (torch.tensor(value, dtype=torch.float64, device=device), n)
            for name, (value, n) in sums.items()
        }

    def add(self, objective: str, terms: dict[str, Tensor], weight: float, batch: Batch) -> None:
        """Add the loss terms of a micro-batch; one of weight 0 counts nothing."""
        if not weight:
            return
        for name, value in terms.items():
            key = name if name == objective else f"{objective} {name}"
            _add(self.losses, key, value.detach().double(), batch.n_targets)
        self.tokens += batch.n_tokens

    def add_norms(self) -> None:
        """Add the gradient norms of a step, of each parameter group that has gradients."""
        for name, parameters in self.net.parameter_groups().items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
            norms = [torch.linalg.vector_norm(value).double() for value in values]
            if norms:
                _add(self.norms, name, torch.linalg.vector_norm(torch.stack(norms)), 1)

    def totals(self, seconds: float) -> Totals:
        """The sums over all processes. All processes have to call it.

        Args:
            seconds: since this meter was made.
        """
        process_losses = {name: (value.item(), n) for name, (value, n) in self.losses.items()}
        losses: dict[str, tuple[float, int]] = {}
        tokens = 0
        for gathered, n_tokens in gather_object([(process_losses, self.tokens)]):
            tokens += n_tokens
            for name, (value, n) in gathered.items():
                _add(losses, name, value, n)
        # norms are those of the summed gradient: equal on all processes
        norms = {name: (value.item(), n) for name, (value, n) in self.norms.items()}
        return Totals(losses, norms, tokens, self.seconds + seconds)


def _add(sums: dict[str, Any], name: str, value: Any, n: int) -> None:
    total, count = sums.get(name, (0.0, 0))
    sums[name] = (total + value, count + n)


def means(sums: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Sum / count of each name."""
    return {name: value / n for name, (value, n) in sums.items()}
