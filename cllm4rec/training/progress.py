"""Progress of a stage, and sums over the steps of an epoch: losses, gradient norms, tokens and time."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from cllm4rec.corpora.base import Batch
from cllm4rec.files.schema import STRICT
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.limits import Limits


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


@dataclass
class Progress:
    """Progress of a stage.

    Attributes:
        epoch: the current epoch, warm-up included.
        step: steps done in this epoch.
        steps: steps done in all epochs.
        first_metric: validation metric of the first weights, if they are kept unless an epoch is better.
        best: the best validation metric of an epoch so far.
        stale: epochs since then.
        best_at: `steps` at the best validation metric.
        late: whether the time limit has passed.
        seconds: spent on the stage.
        totals: sums over the steps of the current epoch.
        limits: how steps are computed; None: not measured yet.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epoch: int = 0
    step: int = 0
    steps: int = 0
    first_metric: float | None = None
    best: float | None = None
    stale: int = 0
    best_at: int = 0
    late: bool = False
    seconds: float = 0.0
    totals: Totals = field(default_factory=Totals)
    limits: Limits | None = None

    @property
    def keeps_first_weights(self) -> bool:
        """Whether the first weights are kept, as no epoch is better so far."""
        first, best = self.first_metric, self.best
        return first is not None and (best is None or best <= first)

    def is_within_patience(self, config: TrainConfig) -> bool:
        """Whether training goes on, as the best epoch is not long ago."""
        return self.stale < config.patience or self.steps - self.best_at < config.patience_steps

    def note(self, quality: float | None, config: TrainConfig) -> bool:
        """Note the validation metric of an epoch, None if it was not validated.

        The patience counts from the best epoch, though the first weights may be better.

        Returns:
            Whether the weights of the epoch are the best so far. Until the first validation the newest are.
        """
        is_best_epoch = self.best is None or (quality is not None and quality > self.best)
        if is_best_epoch:
            self.best, self.stale, self.best_at = quality, 0, self.steps
        elif quality is not None:
            self.stale += config.validate_every
        return is_best_epoch and not self.keeps_first_weights


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
