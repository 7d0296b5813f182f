"""A dry run: time and memory that a stage would take, from what is computed in a few seconds."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from cllm4rec.messages import counted
from cllm4rec.training.batching import (
    MicroBatches,
    micro_batches,
    n_steps,
    padded_tokens,
    parts_of_batch,
)
from cllm4rec.training.checkpointing import checkpointed
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.limits import Limits, TokenLimit
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.memory import needed_bytes, optimiser_bytes
from cllm4rec.training.objective import Objective
from cllm4rec.training.schedule import is_validated, total_epochs
from cllm4rec.training.step_memory import Cost, measure

TIMED_STEPS = 6  # of each objective, at most
SHORT_STEP = 1.0  # seconds; shorter steps are warmed up, and timed whole
TIMED_SECONDS = 6.0  # after which no other step of an objective is timed
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
        micro_batch: tokens of the largest micro-batch of the epoch, padding included.
    """

    name: str
    steps: int
    from_epoch: int
    seconds: float
    tokens: float
    micro_batch: int = 0


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
        checkpointed: whether layers are computed again in the backward pass, to save memory.
        frozen_width: bytes of a frozen parameter.
        averaged: whether moving averages of the weights are kept.
        first_validations: validations before the first epoch.
    """

    trained: dict[str, int]
    frozen: int
    sparse: int
    objectives: list[ObjectiveTiming]
    validation: float | None
    epochs: int
    validate_every: int
    peak: float
    checkpointed: bool = False
    frozen_width: int = FLOAT_BYTES
    averaged: bool = False
    first_validations: int = 0

    @property
    def memory(self) -> float:
        """MiB of all weights; of gradients, Adam's two moments, best and averaged weights of trained ones.

        Activations and data are not included, nor the gradients of sparse tables.
        """
        n_trained = sum(self.trained.values())
        kept = 4 * n_trained  # weights, two moments, best weights
        dense = (1 + self.averaged) * (n_trained - self.sparse)  # gradients, averages
        return (self.frozen_width * self.frozen + FLOAT_BYTES * (kept + dense)) / MIB

    @property
    def warmup(self) -> int:
        """Epochs before all objectives are visited."""
        return max(timing.from_epoch for timing in self.objectives)

    @property
    def max_seconds(self) -> float:
        """Seconds of all epochs and validations, if patience does not end training earlier."""
        n = total_epochs(self.epochs, self.warmup)
        steps = (max(0, n - each.from_epoch) * each.steps * each.seconds for each in self.objectives)
        return sum(steps) + self.validation_seconds

    @property
    def validation_seconds(self) -> float:
        """Seconds of all validations."""
        n = sum(is_validated(epoch, self.epochs, self.validate_every) for epoch in range(self.epochs))
        return (self.first_validations + n) * (self.validation or 0.0)

    def _micro_batches(self) -> str:
        """The largest micro-batches."""
        learned = [timing for timing in self.objectives if timing.steps]
        tokens = ", ".join(f"{timing.micro_batch:,} ({timing.name})" for timing in learned) or "0"
        how = "; layers are computed twice (gradient checkpointing)" if self.checkpointed else ""
        return f"at most {tokens} tokens, padding included{how}"

    def __str__(self) -> str:
        groups = ", ".join(f"{name} {n:,}" for name, n in self.trained.items())
        lines = [
            f"parameters     {sum(self.trained.values()):,} trained ({groups}), {self.frozen:,} frozen",
            f"memory         {self.memory:,.0f} MiB of weights, gradients and optimiser; "
            f"peak in all {self.peak:,.0f} MiB",
            f"micro-batch    {self._micro_batches()}",
        ]
        for timing in self.objectives:
            if not timing.steps:
                continue
            step = f"{timing.seconds:.3g} s and {timing.tokens:,.0f} tokens a step"
            epoch = _duration(timing.steps * timing.seconds)
            steps = counted(timing.steps, "step")
            lines.append(f"{timing.name:<14} {steps} an epoch, {step}: {epoch} an epoch")
        if self.validation is not None:
            validation = _duration(self.validation)
            first = f", and {self.first_validations} before the first epoch" if self.first_validations else ""
            lines.append(f"validation     {validation}, after one epoch in {self.validate_every}{first}")
        warmup = f" and {self.warmup} of warm-up" if self.epochs and self.warmup else ""
        lines.append(
            f"time           at most {_duration(self.max_seconds)} ({counted(self.epochs, 'epoch')}{warmup}; "
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
    first_validations: int = 0,
    memory: float | None = None,
) -> DryRun:
    """Time a few steps of each objective, in parts where they take long. The weights of the network change.

    Args:
        net, objectives, config, accelerator, memory: as `train` takes them.
        time_validation: gives the seconds of a validation; None without validation.
        first_validations: validations before the first epoch.

    Raises:
        ValueError: the longest example needs more memory.
    """
    trained = {
        name: sum(p.numel() for p in group if p.requires_grad)
        for name, group in net.parameter_groups().items()
    }
    frozen = [p for p in net.parameters() if not p.requires_grad]
    held = needed_bytes(accelerator.device) + optimiser_bytes(net, config.averaged)
    step_memory = measure(net, objectives, accelerator, memory, config.averaged)
    limits, costs = step_memory.limits, step_memory.costs
    with (
        checkpointed(net, limits.checkpointed),
        TrainingRun(net, config, accelerator, None, limits) as run,
    ):
        sparse = sum(adam.table.weight.numel() for adam in run.optimizer.row_adams.values())
        net.train()
        timings = [_timed(run, objective, costs.get(objective.name)) for objective in objectives]
    validation = None if time_validation is None else time_validation()
    activations = [costs[each.name].bytes(each.micro_batch) for each in timings if each.name in costs]
    expected = held - FLOAT_BYTES * sparse + max(activations, default=0.0)
    return DryRun(
        trained,
        sum(p.numel() for p in frozen),
        sparse,
        timings,
        validation,
        config.epochs,
        config.validate_every,
        max(_peak_memory(accelerator.device), expected / MIB),
        limits.checkpointed,
        max((p.element_size() for p in frozen), default=FLOAT_BYTES),
        config.averaged,
        first_validations,
    )


def _timed(run: TrainingRun, objective: Objective, cost: Cost | None) -> ObjectiveTiming:
    """Time an objective on typical steps of its first epoch.

    Of a step that takes long only some micro-batches are computed, smaller ones than in training, and its
    time is scaled by the tokens. Of short steps the first is not counted.
    """
    config, epoch, limit = run.config, objective.from_epoch, run.limits.micro_batches.get(objective.name)
    n = n_steps(objective, epoch, config)
    if not n or cost is None or limit is None:
        return ObjectiveTiming(objective.name, 0, epoch, 0.0, 0.0)
    steps, step_lengths = _typical_steps(objective, config)
    is_short = cost.seconds * step_lengths.mean() < SHORT_STEP
    affordable = max(1, int(TIMED_SECONDS / 2 / cost.seconds))
    timed_limit = Limits({objective.name: TokenLimit(min(limit.tokens, affordable), limit.beyond)})
    chosen = steps if is_short else steps[1:]
    counted, seconds, tokens = [], [], []
    began = time.perf_counter()
    parts = micro_batches(objective, epoch, chosen, config, run.accelerator, timed_limit)
    for number, (step, batches) in enumerate(zip(chosen, parts, strict=True)):
        of_step = _time_step(run, objective.name, batches, affordable)
        if number or not is_short:
            counted.append(step)
            seconds.append(of_step[0])
            tokens.append(of_step[1])
        if counted and time.perf_counter() - began > TIMED_SECONDS:
            break
    scale = float(step_lengths.mean() / step_lengths[counted].mean())
    mean_seconds, mean_tokens = (scale * float(np.mean(values)) for values in (seconds, tokens))
    largest = _largest_micro_batch(run, objective, limit)
    return ObjectiveTiming(objective.name, n, epoch, mean_seconds, mean_tokens, largest)


def _time_step(run: TrainingRun, name: str, batches: MicroBatches, affordable: int) -> tuple[float, float]:
    """Seconds and tokens of a step. Of its micro-batches so many are computed as hold `affordable` tokens."""
    accelerator = run.accelerator
    n_tokens = [batch.n_tokens * weight for batch, weight in batches]
    n_computed = min(len(batches), max(1, int(len(batches) * affordable / max(1.0, sum(n_tokens)))))
    places = (
        np.linspace(0, len(batches), n_computed, endpoint=False).astype(int) + len(batches) // n_computed // 2
    )
    began = time.perf_counter()
    run.step(name, [batches[place] for place in places], False)
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - began
    scale = sum(n_tokens) / max(1.0, sum(n_tokens[place] for place in places))
    return scale * elapsed, sum(n_tokens) * accelerator.num_processes


def _largest_micro_batch(run: TrainingRun, objective: Objective, limit: TokenLimit) -> int:
    """Tokens of the largest micro-batch of this process in the first epoch, padding included."""
    config, epoch, corpus = run.config, objective.from_epoch, objective.corpus
    lengths, selection = corpus.lengths_in(epoch), corpus.selection(epoch)
    return max(
        padded_tokens(rows, lengths, limit)
        for begin in range(0, len(selection), config.batch_size)
        for rows in parts_of_batch(
            selection[begin : begin + config.batch_size], lengths, config, run.accelerator, limit
        )
    )


def _peak_memory(device: torch.device) -> float:
    """Most MiB held so far: on a GPU, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _typical_steps(objective: Objective, config: TrainConfig) -> tuple[list[int], np.ndarray]:
    """A sample of the steps of the first epoch.

    Steps are ordered by their tokens and taken at equal distances, so that long examples are neither missed
    nor counted too often. Those of the middle come first, so that the first few are typical too.

    Returns:
        Numbers of the steps, of which the first only warms up; tokens of each step of the epoch (n_steps,).
    """
    epoch, corpus = objective.from_epoch, objective.corpus
    lengths, selection = corpus.lengths_in(epoch), corpus.selection(epoch)
    first_examples = np.arange(0, len(selection), config.batch_size)
    tokens = np.add.reduceat(lengths[selection], first_examples)  # (n_steps,)
    by_tokens = np.argsort(tokens, kind="stable")
    quantiles = (np.arange(TIMED_STEPS) + 0.5) / TIMED_STEPS
    steps = by_tokens[np.unique((quantiles * len(by_tokens)).astype(int))].tolist()
    middle_first = sorted(range(len(steps)), key=lambda place: abs(2 * place + 1 - len(steps)))
    return [steps[len(steps) // 2], *(steps[place] for place in middle_first)], tokens
