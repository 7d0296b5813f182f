"""Steps of an epoch: global batches, their order, and the micro-batches of each process."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from accelerate import Accelerator

from cllm4rec.corpora.base import Batch
from cllm4rec.corpora.padding import cut_by_length
from cllm4rec.data.randomness import permutation
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective

MicroBatches = list[tuple[Batch, float]]  # with their weights: 1, or 0 for a repeated example
SORTED_BATCHES = 50  # batches whose examples are sorted by length together, against padding


def n_steps(objective: Objective, epoch: int, config: TrainConfig) -> int:
    """Steps of an objective in an epoch."""
    return -(-len(objective.corpus.selection(epoch)) // config.batch_size)


def micro_batches(
    objective: Objective, epoch: int, steps: Sequence[int], config: TrainConfig, accelerator: Accelerator
) -> Iterator[MicroBatches]:
    """The micro-batches of this process for some steps of an epoch, with their weights.

    Every process takes its slices of the same global batch, whose examples ascend in length. Where a slice is
    empty, the process computes one example with weight 0, so that all take part in the exchange of gradients.
    A batch that is not sliced is cut in two where it would be padded much.
    """
    corpus, n_slices = objective.corpus, accelerator.num_processes * config.accumulation
    first_slice = accelerator.process_index * config.accumulation
    lengths = corpus.lengths_in(epoch)
    selection = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
    groups, weights, counts = [], [], []
    for step in steps:
        examples = selection[step * config.batch_size :][: config.batch_size]
        if n_slices == 1:
            slices = [rows for rows in cut_by_length(examples, lengths) if len(rows)]
        else:
            slices = np.array_split(examples, n_slices)[first_slice:][: config.accumulation]
        groups += [rows if len(rows) else examples[:1] for rows in slices]
        weights += [float(len(rows) > 0) for rows in slices]
        counts.append(len(slices))
    batches = corpus.batches(groups, epoch, np.repeat(steps, counts).tolist())
    weighted = zip(batches, weights, strict=True)
    for n in counts:
        yield list(islice(weighted, n))


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
