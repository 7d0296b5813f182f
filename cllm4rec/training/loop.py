"""The training loop: visits objectives in turn, averages over the global batch, keeps the best weights."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from cllm4rec.data.randomness import mix
from cllm4rec.training.averaging import AveragedWeights, exchanged
from cllm4rec.training.batching import MicroBatches, steps_of_epoch, steps_of_stage
from cllm4rec.training.checkpointing import checkpointed
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import wait_for_everyone
from cllm4rec.training.hooks import NO_HOOKS, Hooks
from cllm4rec.training.limits import NO_LIMITS, Limits
from cllm4rec.training.memory import FreedMemory
from cllm4rec.training.objective import Objective, warmup_epochs
from cllm4rec.training.optimizer import Optimizer
from cllm4rec.training.progress import Meter, Progress, Totals, means
from cllm4rec.training.records import EpochRecord
from cllm4rec.training.resume import REMEDY, DivergedError, ResumeFile, Stopped, Weights, copy_weights
from cllm4rec.training.schedule import is_validated, learning_rate_factor, total_epochs
from cllm4rec.training.step_memory import measure
from cllm4rec.training.step_values import once_a_step

log = logging.getLogger("cllm4rec")
SAVE_SECONDS = 300.0  # between two saves of the resume file within an epoch; each epoch ends with one


def train(
    net: Any,
    objectives: Sequence[Objective],
    config: TrainConfig,
    accelerator: Accelerator,
    hooks: Hooks = NO_HOOKS,
    resume_file: ResumeFile | None = None,
    memory: float | None = None,
    first_metric: float | None = None,
) -> None:
    """Train until the epochs, the patience or the minutes are used up; `net` then has the best weights.

    The gradient of a step is that of (sum of loss terms over the global batch) / (number of its targets). It
    does not depend on the number of processes and micro-batches.

    Args:
        net: an `nn.Module` with the methods of `Net`. It is wrapped here for several processes.
        objectives: visited in this order within each epoch.
        config: how to train.
        accelerator: device, precision and processes.
        hooks: functions that are called while training.
        resume_file: where progress is saved. If the file exists, training resumes from it; on one process
            of a CPU the result is bit for bit that of uninterrupted training.
        memory: GiB that a process may take; by default a share of what is free. A batch is computed in
            parts that fit. Without it, training resumes with the parts it began with.
        first_metric: validation metric of the first weights, kept if no epoch is better; none if it resumes.

    Raises:
        Stopped: `hooks.should_stop` returned True.
        ValueError: there is no example, the longest needs more memory, or training diverged.
    """
    if not any(len(objective.corpus.lengths) for objective in objectives):
        raise ValueError(
            "there is nothing to learn from: no user has enough training events "
            "(next-item prediction needs two)"
        )
    limits = resume_file.limits() if resume_file is not None else None
    if limits is None or memory not in (None, limits.memory):
        limits = measure(net, objectives, accelerator, memory, config.averaged).limits
    with (
        checkpointed(net, limits.checkpointed),
        TrainingRun(net, config, accelerator, resume_file, limits) as run,
    ):
        run.n_steps = steps_of_stage(objectives, config, limits) if config.schedule == "linear" else None
        run.keep_first_weights(first_metric)
        _train_epochs(run, objectives, hooks)
        run.restore_best_weights()
        if run.progress.keeps_first_weights and accelerator.is_main_process:
            log.info("the first weights (%.4f) are kept: no epoch is better", run.progress.first_metric)
    net.eval()


def _train_epochs(run: "TrainingRun", objectives: Sequence[Objective], hooks: Hooks) -> None:
    """All epochs that are left, each with its validation and record."""
    config, progress, warmup = run.config, run.progress, warmup_epochs(objectives)
    n_epochs = total_epochs(config.epochs, warmup)
    if n_epochs == 0 and not run.best_weights:
        run.keep_best_weights(hooks)
    while run.has_epoch_left(n_epochs):
        _train_epoch(run, objectives, hooks)
        due = is_validated(progress.epoch - warmup, config.epochs, config.validate_every)
        quality = None
        with run.averaged.in_place():
            if hooks.validate is not None and (due or progress.late):
                run.net.eval()
                quality = hooks.validate()
            improved = progress.note(quality, config)
            if improved:
                run.keep_best_weights(hooks)
        if progress.epoch == 0 and progress.keeps_first_weights:  # earlier files of the stage stay until now
            with exchanged(run.weights, run.best_weights):
                hooks.on_best()
        hooks.on_epoch(run.record(quality, improved and quality is not None))
        run.next_epoch()


def _train_epoch(run: "TrainingRun", objectives: Sequence[Objective], hooks: Hooks) -> None:
    """The steps of an epoch that are left, until the time limit."""
    run.net.train()
    progress = run.progress
    run.save_or_stop(hooks.should_stop(), due=hooks.save_first and progress.steps == 0)
    steps = steps_of_epoch(objectives, progress.epoch, progress.step, run.config, run.accelerator, run.limits)
    while not progress.late and (step := next(steps, None)) is not None:
        run.step(*step, hooks.should_stop())
    run.save_or_stop(hooks.should_stop())  # before the validation, which may take long
    run.optimizer.apply_missed_steps()


class TrainingRun:
    """A training under way: the network, its optimiser and its progress.

    As a context it ends with embedding tables on which no step is missing; after divergence, with the best
    weights.

    Attributes:
        weights: trained parameters of the network, by name.
        averaged: their moving averages, which are validated.
        best_weights: copies of the best ones so far; empty if there are none yet.
        progress: epochs and steps that are done.
        n_steps: of all epochs, after which the learning rate would be 0; None if it does not fall.
    """

    n_steps: int | None = None

    def __init__(
        self,
        net: Any,
        config: TrainConfig,
        accelerator: Accelerator,
        resume_file: ResumeFile | None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.net, self.config, self.accelerator, self.resume_file = net, config, accelerator, resume_file
        self.weights: Weights = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.optimizer = Optimizer(net, accelerator)
        self.progress, self.best_weights, moments, averages = Progress(), Weights(), Weights(), Weights()
        if resume_file is not None:
            self.progress, self.best_weights, moments, averages = resume_file.restore(self.weights)
        sparse = {f"{name}.weight" for name in self.optimizer.row_adams}
        self.averaged = AveragedWeights(config.averaging, self.weights, sparse)
        if resume_file is not None and moments:  # there are none before the first step
            self._load(resume_file, moments, averages)
        self.progress.limits = self.limits = limits
        self.freed = FreedMemory(accelerator.device, limits.memory)
        wait_for_everyone(accelerator)  # before the main process replaces the file that the others read
        self.epoch_began = self.saved = time.monotonic()
        self.began = self.saved - self.progress.seconds
        self.meter = Meter(net, self.progress.totals, accelerator)

    def _load(self, resume_file: ResumeFile, moments: Weights, averages: Weights) -> None:
        try:
            self.optimizer.load_moments(moments)
            self.averaged.load(averages)
        except ValueError as error:
            raise ValueError(f"{resume_file.path} does not fit ({error}): {REMEDY}") from error

    def __enter__(self) -> "TrainingRun":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.optimizer.close()
        if isinstance(error, DivergedError):
            self.restore_best_weights()

    def has_epoch_left(self, n_epochs: int) -> bool:
        """Whether another epoch is trained; after the time limit, only an epoch under way is concluded."""
        progress = self.progress
        if progress.late:
            return progress.step > 0
        return progress.epoch < n_epochs and progress.is_within_patience(self.config)

    def step(self, objective: str, batches: MicroBatches, stop: bool) -> None:
        """One step over the micro-batches of this process, then `save_or_stop` if due.

        Processes agree on the number of targets, and on stopping, saving and the time limit, in one exchange.

        Raises:
            Stopped: `stop` is True on any process.
            DivergedError: the gradient is not finite.
        """
        accelerator, progress = self.accelerator, self.progress
        mixed = mix(self.config.seed, progress.steps, accelerator.process_index)[0]
        torch.manual_seed(int(mixed) >> 1)  # 63 bits; draws of dropout do not depend on earlier steps
        n_here = sum(batch.n_targets * weight for batch, weight in batches)
        n_targets, n_stop, n_late, n_due = self._sums(n_here, stop, self._late(), self._save_due())
        # DDP exchanges gradients in the last backward pass; accumulation sums them as processes do
        is_alone = accelerator.distributed_type == DistributedType.NO and self.config.accumulation == 1
        with once_a_step(is_alone and len(batches) > 1) as values:
            for number, (batch, weight) in enumerate(batches):
                last = number == len(batches) - 1
                with nullcontext() if last else accelerator.no_sync(self.optimizer.wrapped):
                    with accelerator.autocast():  # a network without dense gradients is not wrapped
                        terms = self.optimizer.wrapped(objective, batch.to(accelerator.device))
                    loss = torch.stack(list(terms.values())).sum() * weight
                    # DDP averages over processes: times their number gives the sum
                    accelerator.backward(loss * accelerator.num_processes / max(1.0, n_targets))
                self.optimizer.collect_row_gradients()
                self.freed.after_micro_batch()
                self.meter.add(objective, terms, weight, batch)
            values.backward()
        self.optimizer.sum_row_gradients()
        self.meter.add_norms()
        self._clip_gradient(objective)
        factor = learning_rate_factor(progress.steps, self.config.warmup_steps, self.n_steps)
        self.optimizer.step(self.config.learning_rate * factor)
        self.averaged.update(progress.steps)
        progress.step, progress.steps, progress.late = progress.step + 1, progress.steps + 1, n_late > 0
        if n_stop or n_due:
            self.save_or_stop(stop)

    def _clip_gradient(self, objective: str) -> None:
        if torch.isfinite(self.optimizer.clip(self.config.clip_norm)):
            return
        if self.resume_file is not None and self.accelerator.is_main_process:
            self.resume_file.remove()  # resuming would lead to the same step
        raise DivergedError(self.progress.steps, objective, kept=self.progress.best is not None)

    def save_or_stop(self, stop: bool, due: bool = False) -> None:
        """Save progress if it is due; stop if any process was asked to. All processes have to call it.

        Raises:
            Stopped: `stop` is True on any process; progress is saved.
        """
        n_stop, n_due = self._sums(stop, due or self._save_due())
        if n_stop or n_due:
            self.save()
        if n_stop:
            raise Stopped(f"in epoch {self.progress.epoch}, after step {self.progress.step}")

    def _sums(self, *values: float) -> list[float]:
        """Sums of values over the processes."""
        if self.accelerator.num_processes == 1:  # do not wait for a GPU
            return [float(value) for value in values]
        numbers = torch.tensor(values, device=self.accelerator.device, dtype=torch.float64)
        return [float(total) for total in self.accelerator.reduce(numbers).tolist()]

    def _late(self) -> bool:
        minutes = self.config.max_minutes
        return minutes is not None and time.monotonic() - self.began > 60 * minutes

    def _save_due(self) -> bool:
        """Whether the last save is long ago, by the clock of the main process."""
        return self.accelerator.is_main_process and time.monotonic() - self.saved > SAVE_SECONDS

    def totals(self) -> Totals:
        """Sums of the epoch so far; all processes have to call it."""
        return self.meter.totals(time.monotonic() - self.epoch_began)

    def save(self) -> None:
        """Write the resume file; all processes have to call it."""
        if self.resume_file is None:
            return
        self.progress.totals, self.progress.seconds = self.totals(), time.monotonic() - self.began
        if self.accelerator.is_main_process:
            kept = self.best_weights, self.optimizer.moments(), self.averaged.averages
            self.resume_file.write([self.weights, *kept], self.progress)
        self.saved = time.monotonic()

    def keep_first_weights(self, metric: float | None) -> None:
        """Keep the weights before the first step until an epoch is better, if their metric is given."""
        if metric is not None and self.config.epochs and not self.progress.steps:
            self.progress.first_metric = metric
            copy_weights(self.weights, self.best_weights)

    def keep_best_weights(self, hooks: Hooks) -> None:
        """Copy the present weights as the best so far."""
        copy_weights(self.weights, self.best_weights)
        hooks.on_best()

    def restore_best_weights(self) -> None:
        """Give the network its best weights."""
        copy_weights(self.best_weights, self.weights)

    def record(self, quality: float | None, best: bool) -> EpochRecord:
        """The record of the epoch that ends; all processes have to call it."""
        epoch, totals = self.progress.epoch, self.totals()
        speed = totals.tokens / max(totals.seconds, 1e-9)
        losses, norms, diagnostics = means(totals.losses), means(totals.norms), self.net.diagnostics()
        return EpochRecord(epoch, losses, norms, diagnostics, quality, totals.seconds, speed, best)

    def next_epoch(self) -> None:
        """Begin the next epoch, and save."""
        self.progress.epoch, self.progress.step = self.progress.epoch + 1, 0
        self.epoch_began = time.monotonic()
        self.meter = Meter(self.net, Totals(), self.accelerator)
        self.save()
