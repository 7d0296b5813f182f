"""What an epoch gave: losses, gradient norms and speed, summed up step by step."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from cllm4rec.corpora.base import Batch
from cllm4rec.files.schema import STRICT


@dataclass
class EpochRecord:
    """What one epoch gave: a line of metrics.jsonl."""

    epoch: int
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    diagnostics: dict[str, float]
    validation: float | None
    seconds: float
    tokens_per_second: float
    best: bool

    def __str__(self) -> str:
        parts = [f"{name} {value:.4g}" for name, value in {**self.losses, **self.diagnostics}.items()]
        parts += [f"|grad {name}| {value:.3g}" for name, value in self.gradient_norms.items()]
        quality = "not validated"
        if self.validation is not None:
            quality = f"validation ndcg@100 {self.validation:.4f}{' (best so far)' if self.best else ''}"
        speed = f"{self.tokens_per_second:,.0f} tokens/s, {self.seconds:.1f} s"
        return f"epoch {self.epoch}: {', '.join(parts)}; {quality}; {speed}"


@dataclass
class Totals:
    """Sums over the steps of an epoch, of all processes, as numbers that JSON holds exactly."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    losses: dict[str, tuple[float, int]] = field(default_factory=dict)  # name -> sum, targets
    norms: dict[str, tuple[float, int]] = field(default_factory=dict)  # name -> sum, steps
    tokens: int = 0
    seconds: float = 0.0


class Meter:
    """Sums up an epoch on the device: means of loss terms over targets, of gradient norms over steps, tokens.

    Args:
        earlier: what was summed up, over all processes, before training was interrupted within this epoch.
    """

    def __init__(self, net: Any, earlier: Totals, accelerator: Accelerator) -> None:
        self.net, self.accelerator, self.seconds = net, accelerator, earlier.seconds
        main = accelerator.is_main_process  # goes on with the sums of all
        self.losses = self._on_device(earlier.losses if main else {})
        self.norms = self._on_device(earlier.norms)
        self.tokens = earlier.tokens if main else 0

    def _on_device(self, sums: dict[str, tuple[float, int]]) -> dict[str, tuple[Tensor, int]]:
        device = self.accelerator.device
        return {
            name: (torch.tensor(value, dtype=torch.float64, device=device), n)
            for name, (value, n) in sums.items()
        }

    def add(self, objective: str, terms: dict[str, Tensor], weight: float, batch: Batch) -> None:
        if not weight:
            return
        for name, value in terms.items():
            key = name if name == objective else f"{objective} {name}"
            _add(self.losses, key, value.detach().double(), batch.n_targets)
        self.tokens += batch.n_tokens

    def add_norms(self) -> None:
        for name, parameters in self.net.parameter_groups().items():
            gradients = [
                p.grad.values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None
            ]
            norms = [torch.linalg.vector_norm(gradient).double() for gradient in gradients]
            if norms:
                _add(self.norms, name, torch.linalg.vector_norm(torch.stack(norms)), 1)

    def totals(self, seconds: float) -> Totals:
        """The sums so far, over all processes, which all have to ask for them; `seconds` since this meter began."""
        own = {name: (value.item(), n) for name, (value, n) in self.losses.items()}
        losses: dict[str, tuple[float, int]] = {}
        tokens = 0
        for theirs, n_tokens in gather_object([(own, self.tokens)]):
            tokens += n_tokens
            for name, (value, n) in theirs.items():
                _add(losses, name, value, n)
        norms = {
            name: (value.item(), n) for name, (value, n) in self.norms.items()
        }  # of the summed gradient: one for all
        return Totals(losses, norms, tokens, self.seconds + seconds)


def _add(sums: dict[str, Any], name: str, value: Any, n: int) -> None:
    before = sums.get(name, (0.0, 0))
    sums[name] = (before[0] + value, before[1] + n)


def means(sums: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Sum / count of each."""
    return {name: value / n for name, (value, n) in sums.items()}
