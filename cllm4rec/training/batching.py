"""Steps of an epoch: global batches, their order, and the micro-batches of each process."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from accelerate import Accelerator
from tqdm import tqdm

from cllm4rec.corpora.base import Batch
from cllm4rec.corpora.padding import batches_by_length, cut_by_length
from cllm4rec.data.randomness import permutation
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.limits import NO_LIMITS, Limits, TokenLimit
from cllm4rec.training.objective import Objective

MicroBatches = list[tuple[Batch, float]]  # with their weights: 1, or 0 for a repeated example
SORTED_BATCHES = 50  # batches whose examples are sorted by length together, against padding


def n_steps(objective: Objective, epoch: int, config: TrainConfig) -> int:
    """Steps of an objective in an epoch."""
    return -(-len(objective.corpus.selection(epoch)) // config.batch_size)


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

    Every process takes its slices of the same global batch, whose examples ascend in length. Where a slice is
    empty, the process computes one example with weight 0, so that all take part in the exchange of gradients.
    A batch that is not sliced is cut in two where it would be padded much. What has more tokens than its
    limit is cut further.
    """
    corpus, limit = objective.corpus, limits.micro_batches.get(objective.name)
    lengths = corpus.lengths_in(epoch)
    selection = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
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
    """The micro-batches of this process, as examples of a global batch (B,); one may be empty."""
    slices = _slices(examples, lengths, config, accelerator)
    return [part for rows in slices for part in _limited(rows, lengths, limit)]


def _slices(
    examples: np.ndarray, lengths: np.ndarray, config: TrainConfig, accelerator: Accelerator
) -> list[np.ndarray]:
    """The slices of a global batch that this process computes; one may be empty."""
    n_slices = accelerator.num_processes * config.accumulation
    if n_slices == 1:
        return [rows for rows in cut_by_length(examples, lengths) if len(rows)]
    first = accelerator.process_index * config.accumulation
    return np.array_split(examples, n_slices)[first:][: config.accumulation]


def _limited(rows: np.ndarray, lengths: np.ndarray, limit: TokenLimit | None) -> list[np.ndarray]:
    """A slice (B,) in parts of at most `limit` tokens; whole if it has no more."""
    if limit is None or padded_tokens(rows, lengths, limit) <= limit.tokens:
        return [rows]
    parts = batches_by_length(lengths[rows] + limit.beyond, limit.tokens)
    return [rows[part] for part in reversed(parts)]  # long first: freed blocks then hold those of the next


def padded_tokens(rows: np.ndarray, lengths: np.ndarray, limit: TokenLimit) -> int:
    """Tokens of a micro-batch of examples (B,), at most."""
    return len(rows) * (int(lengths[rows].max(initial=0)) + limit.beyond)


def grouped_by_length(
    selection: np.ndarray, lengths: np.ndarray, config: TrainConfig, epoch: int
) -> np.ndarray:
    """The selection (N,), reordered so that examples of a batch have similar lengths.

    Within each SORTED_BATCHES batches, examples are sorted by length, and then the batches are shuffled.
    """
    batches: list[np.ndarray] = []
    for start in range(0, len(selection), SORTED_BATCHES * config.batch_size):
        examples = selection[start : start + SORTED_BATCHES * config.batch_size]
        examples = examples[np.argsort(lengths[examples], kind="stable")]
        cut = [examples[i : i + config.batch_size] for i in range(0, len(examples), config.batch_size)]
        batches += [cut[i] for i in permutation(len(cut), config.seed, epoch, start)]
    return np.concatenate(batches) if batches else selection
