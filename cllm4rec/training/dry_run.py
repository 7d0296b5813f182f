"""A dry run: time and memory that a stage would take, from a few timed steps."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from cllm4rec.training.batching import grouped_by_length, micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.objective import Objective
from cllm4rec.training.schedule import is_validated, total_epochs

TIMED_STEPS = 6  # of each objective
FLOAT_BYTES = 4
MIB = 2**20


@dataclass(frozen=True)
class ObjectiveTiming:
    """One objective as it was timed.

    Attributes:
        name: of the objective.
        steps: in an epoch.
        from_epoch: first epoch that visits it.
        seconds: of a step, on average.
        tokens: of a step, on average.
    """

    name: str
    steps: int
    from_epoch: int
    seconds: float
    tokens: float


@dataclass(frozen=True)
class DryRun:
    """Time and memory that a stage would take.

    Attributes:
        trained: number of trained parameters, by group.
        frozen: number of parameters that are not trained.
        sparse: number of trained parameters in tables whose gradients hold only the rows that were read.
        objectives: as they were timed.
        validation: seconds of a validation; None without one.
        epochs: most epochs, warm-up not counted.
        validate_every: epochs between two validations.
        peak: MiB of memory, at most: of the GPU if there is one, else of this process.
    """

    trained: dict[str, int]
    frozen: int
    sparse: int
    objectives: list[ObjectiveTiming]
    validation: float | None
    epochs: int
    validate_every: int
    peak: float

    @property
    def memory(self) -> float:
        """MiB of all weights; of gradients, Adam's two moments and the best weights of trained ones.

        Activations and data are not included, nor the gradients of sparse tables.
        """
        n_trained = sum(self.trained.values())
        gradients = n_trained - self.sparse
        weights, moments, best = self.frozen + n_trained, 2 * n_trained, n_trained
        return FLOAT_BYTES * (weights + gradients + moments + best) / MIB

    @property
    def warmup(self) -> int:
        """Epochs before all objectives are visited."""
        return max(timing.from_epoch for timing in self.objectives)

    @property
    def max_seconds(self) -> float:
        """Seconds of all epochs and validations, if patience does not end training earlier."""
        n_epochs = total_epochs(self.epochs, self.warmup)
        steps = sum(
            max(0, n_epochs - timing.from_epoch) * timing.steps * timing.seconds for timing in self.objectives
        )
        return steps + self.validation_seconds

    @property
    def validation_seconds(self) -> float:
        """Seconds of all validations."""
        n = sum(is_validated(epoch, self.epochs, self.validate_every) for epoch in range(self.epochs))
        return n * (self.validation or 0.0)

    def __str__(self) -> str:
        groups = ", ".join(f"{name} {n:,}" for name, n in self.trained.items())
        lines = [
            f"parameters   {sum(self.trained.values()):,} trained ({groups}), {self.frozen:,} frozen",
            f"memory       {self.memory:,.0f} MiB of weights, gradients and optimiser; "
            f"{self.peak:,.0f} MiB with all the rest",
        ]
        for timing in self.objectives:
            step = f"{timing.seconds:.3g} s and {timing.tokens:,.0f} tokens a step"
            epoch = _duration(timing.steps * timing.seconds)
            lines.append(f"{timing.name:<12} {timing.steps:,} steps an epoch, {step}: {epoch} an epoch")
        if self.validation is not None:
            validation = _duration(self.validation)
            lines.append(f"validation   {validation}, after one epoch in {self.validate_every}")
        warmup = f" and {self.warmup} of warm-up" if self.epochs and self.warmup else ""
        lines.append(
            f"time         at most {_duration(self.max_seconds)} ({self.epochs} epochs{warmup}; "
            "patience may end them earlier)"
        )
        return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds >= 60:
        return f"{seconds / 60:,.1f} minutes"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def dry_run(
    net: Any,
    objectives: Sequence[Objective],
    config: TrainConfig,
    accelerator: Accelerator,
    time_validation: Callable[[], float] | None,
) -> DryRun:
    """Time a few steps of each objective. The weights of the network change.

    Args:
        net, objectives, config, accelerator: as `train` takes them.
        time_validation: gives the seconds of a validation; None without validation.
    """
    trained = {
        name: sum(p.numel() for p in group if p.requires_grad)
        for name, group in net.parameter_groups().items()
    }
    frozen = sum(p.numel() for p in net.parameters()) - sum(trained.values())
    with TrainingRun(net, config, accelerator, None) as run:
        sparse = sum(adam.table.weight.numel() for adam in run.optimizer.row_adams.values())
        net.train()
        timings = [_timed(run, objective) for objective in objectives]
    validation = None if time_validation is None else time_validation()
    peak = _peak_memory(accelerator.device)
    return DryRun(trained, frozen, sparse, timings, validation, config.epochs, config.validate_every, peak)


def _timed(run: TrainingRun, objective: Objective) -> ObjectiveTiming:
    """Time an objective on typical steps of its first epoch; the first of them is not counted."""
    accelerator, config, epoch = run.accelerator, run.config, objective.from_epoch
    n, seconds, tokens = n_steps(objective, epoch, config), [], []
    steps, scale = _typical_steps(objective, config) if n else ([], 1.0)
    for batches in micro_batches(objective, epoch, steps, config, accelerator):
        began = time.perf_counter()
        run.step(objective.name, batches, False)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        tokens.append(sum(batch.n_tokens * weight for batch, weight in batches) * accelerator.num_processes)
    means = [scale * float(np.mean(values[1:])) if values else 0.0 for values in (seconds, tokens)]
    return ObjectiveTiming(objective.name, n, epoch, *means)


def _peak_memory(device: torch.device) -> float:
    """Most MiB held so far: on a GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _typical_steps(objective: Objective, config: TrainConfig) -> tuple[list[int], float]:
    """A sample of the steps of the first epoch.

    Steps are ordered by their tokens and taken at equal distances, so that long examples are neither missed
    nor counted too often.

    Returns:
        Numbers of the steps, the first only to warm up; mean tokens of a step of the epoch over mean tokens
        of the counted steps.
    """
    epoch, corpus = objective.from_epoch, objective.corpus
    lengths = corpus.lengths_in(epoch)
    selection = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
    first_examples = np.arange(0, len(selection), config.batch_size)
    tokens = np.add.reduceat(lengths[selection], first_examples)  # (n_steps,)
    by_tokens = np.argsort(tokens, kind="stable")
    quantiles = (np.arange(TIMED_STEPS) + 0.5) / TIMED_STEPS
    steps = by_tokens[np.unique((quantiles * len(by_tokens)).astype(int))]
    return [int(steps[len(steps) // 2]), *steps.tolist()], float(tokens.mean() / tokens[steps].mean())
