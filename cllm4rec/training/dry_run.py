"""A dry run: what a stage would take, from a few steps that are timed and thrown away."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from cllm4rec.training.batching import grouped_by_length, micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.objective import Objective

TIMED_STEPS = 6  # of each objective
MIB = 2**20


@dataclass(frozen=True)
class Timed:
    """One objective: its steps in an epoch, from which epoch on, and the seconds and tokens of a step."""

    name: str
    steps: int
    from_epoch: int
    seconds: float
    tokens: float


@dataclass(frozen=True)
class DryRun:
    """What a stage would take.

    Attributes:
        trained: numbers that are trained, by group of parameters.
        frozen: numbers that are not.
        by_rows: trained numbers of tables that are read by rows, and have no gradient beside that of the rows.
        objectives: as they were timed.
        validation: seconds of one validation; None where there is none.
        epochs: most epochs, warm-up not counted.
        validate_every: epochs from one validation to the next.
        peak: MiB at most: of the device where there is one, else of this process.
    """

    trained: dict[str, int]
    frozen: int
    by_rows: int
    objectives: list[Timed]
    validation: float | None
    epochs: int
    validate_every: int
    peak: float

    @property
    def memory(self) -> float:
        """MiB of weights, and of gradients, Adam's two moments and the best weights for those that are trained; activations and
        data come on top."""
        return 4 * (self.frozen + 5 * sum(self.trained.values()) - self.by_rows) / MIB

    @property
    def warmup(self) -> int:
        """Epochs before all objectives are visited."""
        return max(one.from_epoch for one in self.objectives)

    @property
    def most_seconds(self) -> float:
        """Of all epochs, if patience does not end them earlier."""
        n_epochs = self.epochs and self.warmup + self.epochs
        visits = [(one, max(0, n_epochs - one.from_epoch)) for one in self.objectives]
        return sum(one.steps * one.seconds * n for one, n in visits) + self.validation_seconds

    @property
    def validation_seconds(self) -> float:
        """Of all validations."""
        return (self.validation or 0.0) * len(
            {*range(0, self.epochs, self.validate_every), *range(self.epochs)[-1:]}
        )

    def __str__(self) -> str:
        groups = ", ".join(f"{name} {n:,}" for name, n in self.trained.items())
        lines = [
            f"parameters   {sum(self.trained.values()):,} trained ({groups}), {self.frozen:,} frozen",
            f"memory       {self.memory:,.0f} MiB of weights, gradients and optimiser; {self.peak:,.0f} MiB with all the rest",
        ]
        for one in self.objectives:
            each = f"{one.steps:,} steps an epoch, {one.seconds:.3g} s and {one.tokens:,.0f} tokens a step"
            lines.append(f"{one.name:<12} {each}: {_shown(one.steps * one.seconds)} an epoch")
        if self.validation is not None:
            lines.append(f"validation   {_shown(self.validation)}, after one epoch in {self.validate_every}")
        epochs = (
            f"{self.epochs} epochs{f' and {self.warmup} of warm-up' if self.epochs and self.warmup else ''}"
        )
        lines.append(
            f"time         at most {_shown(self.most_seconds)} ({epochs}; patience may end them earlier)"
        )
        return "\n".join(lines)


def _shown(seconds: float) -> str:
    if seconds >= 60:
        return f"{seconds / 60:,.1f} minutes"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def dry_run(
    net: Any,
    objectives: list[Objective],
    config: TrainConfig,
    accelerator: Accelerator,
    validate: Callable[[], float] | None,
) -> DryRun:
    """Time a few steps of each objective; `validate` gives the seconds of a validation. The network is not as it was then."""
    groups = {
        name: sum(p.numel() for p in own if p.requires_grad) for name, own in net.parameter_groups().items()
    }
    frozen = sum(p.numel() for p in net.parameters()) - sum(groups.values())
    course, timed = TrainingRun(net, config, accelerator, None), []
    by_rows = sum(one.table.weight.numel() for one in course.optimizer.rows.values())
    net.train()
    for objective in objectives:
        n, seconds, tokens = n_steps(objective, objective.from_epoch, config), [], []
        some, share = _typical_steps(objective, config) if n else ([], 1.0)
        for batches in micro_batches(objective, objective.from_epoch, some, config, accelerator):
            began = time.perf_counter()
            course.step(objective.name, batches, False)
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            tokens.append(
                sum(batch.n_tokens * weight for batch, weight in batches) * accelerator.num_processes
            )
        means = [share * float(np.mean(values[1:])) if values else 0.0 for values in (seconds, tokens)]
        timed.append(Timed(objective.name, n, objective.from_epoch, *means))
    course.optimizer.close()
    validation = None if validate is None else validate()
    peak = _peak(accelerator.device)
    return DryRun(groups, frozen, by_rows, timed, validation, config.epochs, config.validate_every, peak)


def _peak(device: torch.device) -> float:
    """Most MiB held so far: on the device where it has memory of its own, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _typical_steps(objective: Objective, config: TrainConfig) -> tuple[list[int], float]:
    """Steps of the first epoch from short to long, and before them one to warm up, which is not counted; and the tokens of a
    step of the epoch over those of a step that is counted, on average. So what long examples take is neither missed nor counted
    too often."""
    epoch, corpus = objective.from_epoch, objective.corpus
    lengths = corpus.lengths_in(epoch)
    selection = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
    tokens = np.add.reduceat(lengths[selection], np.arange(0, len(selection), config.batch_size))
    order = np.argsort(tokens, kind="stable")
    some = order[np.unique(((np.arange(TIMED_STEPS) + 0.5) / TIMED_STEPS * len(order)).astype(int))]
    return [int(some[len(some) // 2]), *some.tolist()], float(tokens.mean() / tokens[some].mean())
