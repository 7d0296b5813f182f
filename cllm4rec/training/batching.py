"""Steps of an epoch: global batches, their order, and the micro-batches of each process."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from accelerate import Accelerator

from cllm4rec.corpora.padding import Batch, cut_by_length
from cllm4rec.data.randomness import permutation
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.objective import Objective

MicroBatches = list[tuple[Batch, float]]  # and the weight of each


GROUP = 50  # batches whose examples are sorted by length together, to pad less


def n_steps(objective: Objective, epoch: int, config: TrainConfig) -> int:
    """Steps of an objective in an epoch."""
    return -(-len(objective.corpus.selection(epoch)) // config.batch_size)


def micro_batches(
    objective: Objective, epoch: int, steps: Sequence[int], config: TrainConfig, accelerator: Accelerator
) -> Iterator[MicroBatches]:
    """Some steps of an epoch: the micro-batches of this process, each with its weight.

    Every process takes its slice of the same global batch, whose examples ascend in length. Where a slice is empty the process
    computes one example with weight 0, so that all take part in the exchange of gradients. A batch that is not sliced at all is
    computed in two parts where it would be padded much.
    """
    corpus, slices = objective.corpus, accelerator.num_processes * config.accumulation
    lengths = corpus.lengths_in(epoch)
    selection = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
    parts, weights, counts = [], [], []
    for step in steps:
        examples = selection[step * config.batch_size :][: config.batch_size]
        if slices == 1:
            mine = [part for part in cut_by_length(examples, lengths) if len(part)]
        else:
            mine = np.array_split(examples, slices)[accelerator.process_index * config.accumulation :][
                : config.accumulation
            ]
        parts += [part if len(part) else examples[:1] for part in mine]
        weights += [float(len(part) > 0) for part in mine]
        counts.append(len(mine))
    batches = zip(corpus.batches(parts, epoch, np.repeat(steps, counts).tolist()), weights, strict=True)
    for n in counts:
        yield list(islice(batches, n))


def grouped_by_length(
    selection: np.ndarray, lengths: np.ndarray, config: TrainConfig, epoch: int
) -> np.ndarray:
    """The selection with examples of like length side by side within stretches of GROUP batches, batches shuffled."""
    stretches = []
    for start in range(0, len(selection), GROUP * config.batch_size):
        part = selection[start : start + GROUP * config.batch_size]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches = [part[i : i + config.batch_size] for i in range(0, len(part), config.batch_size)]
        stretches += [batches[i] for i in permutation(len(batches), config.seed, epoch, start)]
    return np.concatenate(stretches) if stretches else selection
