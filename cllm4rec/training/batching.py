"""Steps of an epoch: global batches, their order, and the micro-batches of each process."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from accelerate import Accelerator
from tqdm import tqdm

from cllm4rec.corpora.base import Batch
from cllm4rec.corpora.padding import batches_by_length
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.limits import NO_LIMITS, Limits, TokenLimit
from cllm4rec.training.objective import Objective, warmup_epochs
from cllm4rec.training.schedule import total_epochs

MicroBatches = list[tuple[Batch, float]]  # with their weights: 1, or 0 for a repeated example
UNLIMITED = TokenLimit(sys.maxsize)
# Padded positions of a micro-batch that cost less than a further one. The value for GPUs was not measured.
FREE_PADDING, FREE_PADDING_ON_GPU = 256, 4096


def n_steps(objective: Objective, epoch: int, config: TrainConfig) -> int:
    """Steps of an objective in an epoch."""
    return -(-len(objective.corpus.selection(epoch)) // config.batch_size)


def steps_of_stage(objectives: Sequence[Objective], config: TrainConfig, limits: Limits = NO_LIMITS) -> int:
    """Steps of all epochs, those of content warm-up included, if nothing ends training earlier."""
    warmup = warmup_epochs(objectives)
    return sum(
        n_steps(objective, epoch, config)
        for epoch in range(total_epochs(config.epochs, warmup))
        for objective in objectives
        if objective.from_epoch <= epoch and limits.learned(objective.name)
    )


def steps_of_epoch(
    objectives: Sequence[Objective],
    epoch: int,
    n_done: int,
    config: TrainConfig,
    accelerator: Accelerator,
    limits: Limits = NO_LIMITS,
) -> Iterator[tuple[str, MicroBatches]]:
    """Steps of an epoch after the first `n_done`: name of the objective, micro-batches of this process.

    A terminal shows a bar.
    """
    hidden = None if accelerator.is_main_process else True  # None: shown on a terminal only
    for objective in objectives:
        if objective.from_epoch > epoch or not limits.learned(objective.name):
            continue
        n = n_steps(objective, epoch, config)
        steps, n_done = range(min(n_done, n), n), max(0, n_done - n)
        batches = micro_batches(objective, epoch, steps, config, accelerator, limits)
        title = f"epoch {epoch} {objective.name}"
        for step_batches in tqdm(batches, title, len(steps), leave=False, disable=hidden):
            yield objective.name, step_batches


def micro_batches(
    objective: Objective,
    epoch: int,
    steps: Sequence[int],
    config: TrainConfig,
    accelerator: Accelerator,
    limits: Limits = NO_LIMITS,
) -> Iterator[MicroBatches]:
    """The micro-batches of this process for some steps of an epoch, with their weights.

    A global batch has consecutive examples of the corpus, whatever their length. Batches of similar length
    would pad less, but a loss that is a mean over the targets of its batch would weigh the targets of short
    examples more.

    Every process takes its slices of the same global batch. A slice is computed in parts of similar length.
    Where a slice is empty, the process computes one example with weight 0, so that all take part in the
    exchange of gradients.
    """
    corpus, limit = objective.corpus, limits.micro_batches.get(objective.name)
    lengths, selection = corpus.lengths_in(epoch), corpus.selection(epoch)
    groups, weights, counts = [], [], []
    for step in steps:
        examples = selection[step * config.batch_size :][: config.batch_size]
        slices = parts_of_batch(examples, lengths, config, accelerator, limit)
        groups += [rows if len(rows) else examples[:1] for rows in slices]
        weights += [float(len(rows) > 0) for rows in slices]
        counts.append(len(slices))
    batches = corpus.batches(groups, epoch, np.repeat(steps, counts).tolist())
    weighted = zip(batches, weights, strict=True)
    for n in counts:
        yield list(islice(weighted, n))


def parts_of_batch(
    examples: np.ndarray,
    lengths: np.ndarray,
    config: TrainConfig,
    accelerator: Accelerator,
    limit: TokenLimit | None,
) -> list[np.ndarray]:
    """The micro-batches of this process, as examples of a global batch (B,); one may be empty.

    The examples are dealt to the slices in the order of their length, so that processes compute alike many
    tokens.
    """
    n_slices = accelerator.num_processes * config.accumulation
    first = accelerator.process_index * config.accumulation
    ascending = examples[np.argsort(lengths[examples], kind="stable")]
    slices = [ascending[number::n_slices] for number in range(first, first + config.accumulation)]
    on_gpu = accelerator.device.type == "cuda"
    free = FREE_PADDING_ON_GPU if on_gpu else FREE_PADDING
    return [part for rows in slices for part in _parts(rows, lengths, limit or UNLIMITED, free)]


def _parts(rows: np.ndarray, lengths: np.ndarray, limit: TokenLimit, free: int) -> list[np.ndarray]:
    """A slice (B,) in parts of similar length, of at most the limit; those of long examples come first.

    Blocks of memory that are freed then hold those of the next part.
    """
    parts = batches_by_length(lengths[rows] + limit.beyond, limit.tokens, free)
    return [rows[part] for part in reversed(parts)] or [rows]


def padded_tokens(rows: np.ndarray, lengths: np.ndarray, limit: TokenLimit) -> int:
    """Tokens of a micro-batch of examples (B,), at most."""
    return len(rows) * (int(lengths[rows].max(initial=0)) + limit.beyond)
