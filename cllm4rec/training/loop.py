"""The only training loop: visits objectives in turn, counts targets over the global batch, keeps the best weights."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm import tqdm

from cllm4rec.data.randomness import mix, permutation
from cllm4rec.text.corpora import Corpus
from cllm4rec.text.ragged import Batch
from cllm4rec.training.config import TrainConfig

GROUP = 50  # batches whose examples are sorted by length together, to pad less


class Net(Protocol):
    """What the loop needs of a network, beside being an `nn.Module`."""

    def __call__(self, objective: str, batch: Batch) -> dict[str, Tensor]:
        """Loss terms by name, each a sum over the batch."""
        ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters under the names that the gradient norms are reported by."""
        ...

    def diagnostics(self) -> dict[str, float]:
        """Further values worth a look after each epoch."""
        ...


@dataclass(frozen=True)
class Objective:
    """One thing to learn: the corpus, visited in every epoch from `from_epoch` on; epochs before that are a warm-up."""

    name: str
    corpus: Corpus
    from_epoch: int = 0


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
        quality = "none" if self.validation is None else f"{self.validation:.4f}{' *' if self.best else ''}"
        speed = f"{self.tokens_per_second:,.0f} tokens/s, {self.seconds:.1f} s"
        return f"epoch {self.epoch}: {', '.join(parts)}; validation ndcg@100 {quality}; {speed}"


def train(
    net: Any,
    objectives: list[Objective],
    config: TrainConfig,
    accelerator: Accelerator,
    validate: Callable[[], float] | None,
    on_best: Callable[[], None],
    on_epoch: Callable[[EpochRecord], None],
) -> None:
    """Train until the epochs, the patience or the minutes are used up.

    Args:
        net: an `nn.Module` that is a `Net`. It is wrapped here, so that several processes see one `forward`.
        objectives: visited in this order within each epoch.
        validate: gives the metric (higher is better) that chooses the weights; without it the last weights are kept.
        on_best: called whenever the weights in `net` are the best so far.
        on_epoch: called after each epoch.

    The gradient is that of (sum of loss terms over the global batch) / (number of its targets), whatever the number of
    processes and micro-batches.
    """
    optimizer = _optimizer(net, config)
    wrapped, prepared = accelerator.prepare(net, optimizer)
    warmup = max((objective.from_epoch for objective in objectives), default=0)
    deadline = time.monotonic() + 60 * config.max_minutes if config.max_minutes is not None else np.inf
    best, stale, step = -np.inf, 0, 0
    for epoch in range(config.epochs and warmup + config.epochs):
        torch.manual_seed(int(mix(config.seed, epoch)[0] >> np.uint64(1)))
        net.train()
        meter, began, late = _Meter(net), time.monotonic(), False
        for name, batches in _steps(objectives, epoch, config, accelerator):
            _learn(wrapped, prepared, name, batches, config, accelerator, meter, step)
            step += 1
            if late := _out_of_time(deadline, accelerator):
                break
        quality = None
        if validate is not None and (epoch >= warmup or late):
            net.eval()
            quality = validate()
        improved = quality is None or quality > best
        best, stale = (best if quality is None else max(best, quality)), 0 if improved else stale + 1
        if improved:
            on_best()
        on_epoch(meter.record(epoch, quality, improved and quality is not None, time.monotonic() - began, accelerator))
        if late or stale >= config.patience:
            break
    if config.epochs == 0:
        on_best()
    net.eval()


def _optimizer(net: Any, config: TrainConfig) -> torch.optim.Optimizer:
    groups = [{"params": parameters} for parameters in net.parameter_groups().values() if parameters]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0)


def _steps(
    objectives: list[Objective], epoch: int, config: TrainConfig, accelerator: Accelerator
) -> Iterator[tuple[str, list[tuple[Batch, float]]]]:
    """The micro-batches of this process, step by step, each with its weight, behind the name of their objective.

    Every process takes its slice of the same global batch. Where a slice is empty the process computes one example with
    weight 0, so that all take part in the exchange of gradients.
    """
    slices = accelerator.num_processes * config.accumulation
    hidden = None if accelerator.is_main_process else True  # None: shown on a terminal only
    for objective in [one for one in objectives if one.from_epoch <= epoch]:
        corpus = objective.corpus
        selection = _grouped_by_length(corpus.selection(epoch), corpus.lengths, config, epoch)
        starts = range(0, len(selection), config.batch_size)
        for start in tqdm(starts, desc=f"epoch {epoch} {objective.name}", leave=False, disable=hidden):
            parts = np.array_split(selection[start : start + config.batch_size], slices)
            mine = parts[accelerator.process_index * config.accumulation :][: config.accumulation]
            filled = [(part if len(part) else selection[start : start + 1], float(len(part) > 0)) for part in mine]
            yield objective.name, [(corpus.batch(part, epoch), weight) for part, weight in filled]


def _grouped_by_length(selection: np.ndarray, lengths: np.ndarray, config: TrainConfig, epoch: int) -> np.ndarray:
    """The selection with examples of like length side by side within stretches of GROUP batches, batches shuffled."""
    stretches = []
    for start in range(0, len(selection), GROUP * config.batch_size):
        part = selection[start : start + GROUP * config.batch_size]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches = [part[i : i + config.batch_size] for i in range(0, len(part), config.batch_size)]
        stretches += [batches[i] for i in permutation(len(batches), config.seed, epoch, start)]
    return np.concatenate(stretches) if stretches else selection


def _learn(
    wrapped: Any,
    optimizer: Any,
    objective: str,
    batches: list[tuple[Batch, float]],
    config: TrainConfig,
    accelerator: Accelerator,
    meter: "_Meter",
    step: int,
) -> None:
    """One step of the optimiser over the micro-batches of this process."""
    own = sum(len(batch["targets"]) * weight for batch, weight in batches)
    n_targets = float(accelerator.reduce(torch.tensor(own, device=accelerator.device, dtype=torch.float64)).item())
    for number, (batch, weight) in enumerate(batches):
        on_device = {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}
        last = number == len(batches) - 1
        with accelerator.no_sync(wrapped) if not last else nullcontext():
            terms = wrapped(objective, on_device)
            loss = torch.stack(list(terms.values())).sum() * weight
            # DDP averages over processes: times their number gives the sum
            accelerator.backward(loss * accelerator.num_processes / n_targets)
        meter.add(objective, terms, weight, on_device)
    meter.add_norms()
    norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm)
    if norm is not None and not torch.isfinite(norm):
        raise ValueError(
            f"training diverged in step {step} ({objective}): the gradient is not finite; lower --learning-rate "
            "(the best epoch so far is kept)"
        )
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    optimizer.step()
    optimizer.zero_grad()


def _out_of_time(deadline: float, accelerator: Accelerator) -> bool:
    """Whether the time is up by the clock of any process; all of them get the same answer."""
    if deadline == np.inf:
        return False
    late = torch.tensor(float(time.monotonic() > deadline), device=accelerator.device)
    return bool(accelerator.reduce(late).item() > 0)


class _Meter:
    """Sums up an epoch: means of loss terms over targets, of gradient norms over steps, tokens."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.sums: dict[str, Tensor] = {}
        self.targets: dict[str, int] = {}
        self.norms: dict[str, list[Tensor]] = {}
        self.tokens = 0

    def add(self, objective: str, terms: dict[str, Tensor], weight: float, batch: Batch) -> None:
        if not weight:
            return
        for name, value in terms.items():
            key = name if name == objective else f"{objective} {name}"
            self.sums[key] = self.sums.get(key, torch.zeros((), device=value.device)) + value.detach()
            self.targets[key] = self.targets.get(key, 0) + len(batch["targets"])
        self.tokens += int(batch["mask"].sum())

    def add_norms(self) -> None:
        for name, parameters in self.net.parameter_groups().items():
            squares = [p.grad.detach().float().square().sum() for p in parameters if p.grad is not None]
            if squares:
                self.norms.setdefault(name, []).append(torch.stack(squares).sum().sqrt())

    def record(self, epoch: int, quality: float | None, best: bool, seconds: float, accelerator: Accelerator) -> EpochRecord:
        """The epoch over all processes."""
        own = {name: (float(value), self.targets[name]) for name, value in self.sums.items()}
        sums: dict[str, float] = {}
        targets: dict[str, int] = {}
        tokens = 0
        for losses, n_tokens in gather_object([(own, self.tokens)]):
            tokens += n_tokens
            for name, (value, n) in losses.items():
                sums[name], targets[name] = sums.get(name, 0.0) + value, targets.get(name, 0) + n
        return EpochRecord(
            epoch,
            {name: sums[name] / targets[name] for name in sums},
            {name: float(torch.stack(values).mean()) for name, values in self.norms.items()},
            self.net.diagnostics(),
            quality,
            seconds,
            tokens / max(seconds, 1e-9),
            best,
        )
