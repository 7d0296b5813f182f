"""The only training loop: visits objectives in turn, counts targets over the global batch, keeps the best weights."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from cllm4rec.data.randomness import mix
from cllm4rec.training.batching import MicroBatches, micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective
from cllm4rec.training.optimizer import Optimizer
from cllm4rec.training.progress import EpochRecord, Meter, Totals, means
from cllm4rec.training.resume import Progress, ResumeFile, Stopped, Weights

SAVE_SECONDS = (
    300.0  # between two savings of the state within an epoch; at the end of an epoch it is saved anyway
)


def train(
    net: Any,
    objectives: list[Objective],
    config: TrainConfig,
    accelerator: Accelerator,
    validate: Callable[[], float] | None = None,
    on_best: Callable[[], None] = lambda: None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    state: ResumeFile | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until the epochs, the patience or the minutes are used up; the best weights are in `net` then.

    Args:
        net: an `nn.Module` that is a `Net` (`optimizers`). It is wrapped here, so that several processes see one `forward`.
        objectives: visited in this order within each epoch.
        validate: gives the metric (higher is better) that chooses the weights, every so many epochs as `config` says;
            without it the last weights are kept.
        on_best: called whenever the weights in `net` are the best so far.
        on_epoch: called after each epoch.
        state: where the state is saved, and taken up from if it is there: training then goes on, and on one process of a
            CPU gives bit for bit what it would have given without the interruption.
        should_stop: asked in every step, of any process.

    The gradient is that of (sum of loss terms over the global batch) / (number of its targets), whatever the number of
    processes and micro-batches.

    Raises:
        Stopped: `should_stop` said so.
        ValueError: there is no example, or training diverged.
    """
    if not any(len(objective.corpus.lengths) for objective in objectives):
        raise ValueError(
            "there is nothing to learn from: no user has enough training events (for what comes next: two)"
        )
    with TrainingRun(net, config, accelerator, state) as course:
        _run(course, objectives, validate, on_best, on_epoch, should_stop)
    net.eval()


def _run(
    course: "TrainingRun",
    objectives: list[Objective],
    validate: Callable[[], float] | None,
    on_best: Callable[[], None],
    on_epoch: Callable[[EpochRecord], None],
    should_stop: Callable[[], bool],
) -> None:
    """`train`, once all is ready."""
    net, config, at = course.net, course.config, course.at
    warmup = max((objective.from_epoch for objective in objectives), default=0)
    n_epochs = config.epochs and warmup + config.epochs
    if not course.best and n_epochs == 0:
        course.keep_best(on_best)
    while at.step if at.late else (at.stale < config.patience and at.epoch < n_epochs):
        net.train()
        course.pause(should_stop())
        for name, batches in _steps(objectives, at, config, course.accelerator) if not at.late else ():
            course.step(name, batches, should_stop())
            if at.late:
                break
        course.pause(should_stop())  # before what may take long
        course.optimizer.apply_missed_steps()
        quality = None
        due = at.epoch >= warmup and (
            (at.epoch - warmup) % config.validate_every == 0 or at.epoch + 1 == n_epochs
        )
        if validate is not None and (due or at.late):
            net.eval()
            quality = validate()
        improved = course.judge(quality, on_best)
        on_epoch(course.record(quality, improved and quality is not None))
        course.next_epoch()
    course.take_best()


class TrainingRun:
    """A training under way: the network, its optimiser, and where it stands."""

    def __init__(
        self, net: Any, config: TrainConfig, accelerator: Accelerator, state: ResumeFile | None
    ) -> None:
        self.net, self.config, self.accelerator, self.state = net, config, accelerator, state
        self.weights: Weights = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.optimizer = Optimizer(net, accelerator)
        self.at, self.best = Progress(), Weights()
        if state is not None:
            self.at, self.best, moments = state.restore(self.weights)
            if moments:
                try:
                    self.optimizer.load(moments)
                except ValueError as error:
                    raise ValueError(
                        f"{state.path} does not fit ({error}): remove it and start this stage again"
                    ) from error
        accelerator.wait_for_everyone()  # before the main process replaces what the others have to read
        now = time.monotonic()
        self.began, self.epoch_began, self.saved = now - self.at.seconds, now, now
        self.meter = Meter(net, self.at.totals, accelerator)

    def __enter__(self) -> "TrainingRun":
        return self

    def __exit__(self, *ended: object) -> None:
        self.optimizer.close()

    def pause(self, stop: bool) -> None:
        """Save the state if that is due; stop if any process was asked to."""
        stops, dues = self._agree(stop, self._due())
        if stops or dues:
            self.save()
        if stops:
            raise Stopped(f"in epoch {self.at.epoch}, after step {self.at.step}")

    def step(self, objective: str, batches: MicroBatches, stop: bool) -> None:
        """One step of the optimiser over the micro-batches of this process; a pause after it, where one is asked for."""
        accelerator, config, at = self.accelerator, self.config, self.at
        torch.manual_seed(
            int(mix(config.seed, at.steps, accelerator.process_index)[0] >> np.uint64(1))
        )  # of dropout
        own = sum(batch.n_targets * weight for batch, weight in batches)
        n_targets, stops, lates, dues = self._agree(own, stop, self._late(), self._due())
        for number, (batch, weight) in enumerate(batches):
            last = number == len(batches) - 1
            with accelerator.no_sync(self.optimizer.wrapped) if not last else nullcontext():
                with accelerator.autocast():  # a network without dense gradients is not wrapped
                    terms = self.optimizer.wrapped(objective, batch.to(accelerator.device))
                loss = torch.stack(list(terms.values())).sum() * weight
                # DDP averages over processes: times their number gives the sum
                accelerator.backward(loss * accelerator.num_processes / max(1.0, n_targets))
            self.optimizer.take_rows()
            self.meter.add(objective, terms, weight, batch)
        self.optimizer.gather_rows()
        self.meter.add_norms()
        if not torch.isfinite(self.optimizer.clip(config.clip_norm)):
            if self.state is not None and accelerator.is_main_process:
                self.state.remove()  # it would lead here again
            raise ValueError(
                f"training diverged in step {at.steps} ({objective}): the gradient is not finite; lower --learning-rate "
                "(the best epoch so far is kept)"
            )
        self.optimizer.step(config.learning_rate * min(1.0, (at.steps + 1) / max(1, config.warmup_steps)))
        at.step, at.steps, at.late = at.step + 1, at.steps + 1, lates > 0
        if stops or dues:
            self.pause(stop)

    def _agree(self, *own: float) -> list[float]:
        """Sums over the processes."""
        numbers = torch.tensor(own, device=self.accelerator.device, dtype=torch.float64)
        return [float(one) for one in self.accelerator.reduce(numbers).tolist()]

    def _late(self) -> bool:
        minutes = self.config.max_minutes
        return minutes is not None and time.monotonic() - self.began > 60 * minutes

    def _due(self) -> bool:
        """Whether the state was last saved long ago, by the clock of the main process."""
        return self.accelerator.is_main_process and time.monotonic() - self.saved > SAVE_SECONDS

    def totals(self) -> Totals:
        return self.meter.totals(time.monotonic() - self.epoch_began)

    def save(self) -> None:
        """Write the state; all processes have to call it."""
        if self.state is None:
            return
        self.at.totals, self.at.seconds = self.totals(), time.monotonic() - self.began
        if self.accelerator.is_main_process:
            self.state.write(self.weights, self.best, self.optimizer.state(), self.at)
        self.saved = time.monotonic()

    def judge(self, quality: float | None, on_best: Callable[[], None]) -> bool:
        """Keep the weights if they are the best so far; until the first validation the newest are."""
        improved = self.at.best is None or (quality is not None and quality > self.at.best)
        if improved:
            self.at.best, self.at.stale = quality, 0
            self.keep_best(on_best)
        elif quality is not None:
            self.at.stale += self.config.validate_every
        return improved

    def keep_best(self, on_best: Callable[[], None]) -> None:
        """The weights at hand are the best so far."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                if name in self.best:  # in place, so that the best weights are there once
                    self.best[name].copy_(parameter)
                else:
                    self.best[name] = parameter.detach().clone()
        on_best()

    def take_best(self) -> None:
        with torch.no_grad():
            for name, parameter in self.weights.items():
                if name in self.best:
                    parameter.copy_(self.best[name])

    def record(self, quality: float | None, best: bool) -> EpochRecord:
        totals = self.totals()
        speed = totals.tokens / max(totals.seconds, 1e-9)
        losses, norms = means(totals.losses), means(totals.norms)
        return EpochRecord(
            self.at.epoch, losses, norms, self.net.diagnostics(), quality, totals.seconds, speed, best
        )

    def next_epoch(self) -> None:
        self.at.epoch, self.at.step, self.epoch_began = self.at.epoch + 1, 0, time.monotonic()
        self.meter = Meter(self.net, Totals(), self.accelerator)
        self.save()


def _steps(
    objectives: list[Objective], at: Progress, config: TrainConfig, accelerator: Accelerator
) -> Iterator[tuple[str, MicroBatches]]:
    """The micro-batches of this process, step by step, behind the name of their objective; steps of the epoch that are done
    already are passed over."""
    hidden = None if accelerator.is_main_process else True  # None: shown on a terminal only
    done = at.step
    for objective in [one for one in objectives if one.from_epoch <= at.epoch]:
        n = n_steps(objective, at.epoch, config)
        steps, done = range(min(done, n), n), max(0, done - n)
        batches = micro_batches(objective, at.epoch, steps, config, accelerator)
        for own in tqdm(
            batches, f"epoch {at.epoch} {objective.name}", len(steps), leave=False, disable=hidden
        ):
            yield objective.name, own
