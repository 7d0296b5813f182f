"""Global batches, their parts of similar length, and the steps that a dry run times."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.corpora.base import Batch, Corpus
from cllm4rec.training.batching import micro_batches, padded_tokens, parts_of_batch
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.dry_run import TIMED_STEPS, _typical_steps
from cllm4rec.training.limits import TokenLimit
from cllm4rec.training.objective import Objective


@dataclass(frozen=True, kw_only=True)
class NumberedBatch(Batch):
    """Which examples it has, in which step."""

    examples: Tensor
    step: Tensor

    @property
    def n_targets(self) -> int:
        return len(self.examples)


class LengthsAlone(Corpus):
    """Examples with lengths and no content."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def selection(self, epoch: int) -> np.ndarray:
        return np.arange(len(self.lengths))

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        mask = torch.ones(len(examples), 1, dtype=torch.bool)
        return NumberedBatch(mask=mask, examples=torch.from_numpy(examples), step=torch.tensor(step))


class Process:
    """What batching asks of an Accelerator."""

    def __init__(self, index: int, n: int, device: str = "cpu") -> None:
        self.process_index, self.num_processes, self.device = index, n, torch.device(device)


def padded(parts: list[np.ndarray], lengths: np.ndarray) -> float:
    """The share of padding in parts of a batch."""
    positions = sum(len(rows) * lengths[rows].max() for rows in parts)
    return float(1 - sum(lengths[rows].sum() for rows in parts) / positions)


@pytest.mark.parametrize("n_processes", [1, 3])
def test_the_batch_of_a_step_has_the_next_examples_of_the_corpus(n_processes: int) -> None:
    """Whatever their length. Batches of similar length would weigh the targets of short examples more."""
    corpus, config = LengthsAlone(np.random.default_rng(0).integers(5, 200, 130)), TrainConfig(batch_size=32)
    for step in (0, 3, 4):  # the last has two examples
        found = []
        for index in range(n_processes):
            process: Any = Process(index, n_processes)
            (batches,) = micro_batches(Objective("any", corpus), 0, [step], config, process)
            for batch, weight in batches:
                assert isinstance(batch, NumberedBatch) and batch.step == step
                found += batch.examples.tolist() if weight else []
        assert sorted(found) == list(range(step * 32, min(130, (step + 1) * 32)))


def test_parts_of_a_batch_have_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 4 * 256)
    config, parts_on = TrainConfig(batch_size=256), {}
    for device in ("cpu", "cuda"):
        process: Any = Process(0, 1, device)
        parts_on[device] = parts_of_batch(np.arange(256), lengths, config, process, None)
        assert sorted(np.concatenate(parts_on[device])) == list(range(256))
    assert padded(parts_on["cpu"], lengths) < 0.2
    assert 1 < len(parts_on["cuda"]) < len(parts_on["cpu"]), "a further pass costs more on a GPU"
    short = np.minimum(lengths, 20)
    alone: Any = Process(0, 1)
    assert len(parts_of_batch(np.arange(100), short, config, alone, None)) == 1, "not worth a further pass"


@pytest.mark.parametrize(("n_processes", "accumulation"), [(1, 4), (4, 1), (2, 3)])
def test_processes_compute_each_example_once_and_alike_many_tokens(
    n_processes: int, accumulation: int
) -> None:
    lengths = np.random.default_rng(1).pareto(1.5, 600).astype(np.int64) + 5
    config = TrainConfig(batch_size=256, accumulation=accumulation)
    for n_examples in (256, 3):
        examples, found, tokens = np.arange(n_examples) + 100, [], []
        for index in range(n_processes):
            process: Any = Process(index, n_processes)
            limit = TokenLimit(300, beyond=1)
            parts = parts_of_batch(examples, lengths, config, process, limit)
            assert len(parts) >= accumulation
            assert all(len(rows) <= 1 or padded_tokens(rows, lengths, limit) <= 300 for rows in parts)
            found += [number for rows in parts for number in rows]
            tokens.append(sum(lengths[rows].sum() for rows in parts))
        assert sorted(found) == examples.tolist()
        assert n_examples == 3 or max(tokens) < 1.2 * min(tokens)


@pytest.mark.parametrize("n_steps", [1, 5, 40])
def test_the_steps_that_a_dry_run_times_are_typical_of_the_epoch(n_steps: int) -> None:
    """A few examples are very long: evenly spaced steps would miss them or count them too often."""
    corpus = LengthsAlone(np.random.default_rng(0).pareto(1.5, 8 * n_steps).astype(np.int64) + 5)
    config = TrainConfig(batch_size=8)
    (first, *timed), step_lengths = _typical_steps(Objective("any", corpus), config)
    tokens = corpus.lengths.reshape(n_steps, 8).sum(1)
    assert step_lengths.tolist() == tokens.tolist()
    assert first in timed, "warmed up by one of them"
    assert len(set(timed)) == len(timed) == min(n_steps, TIMED_STEPS)
    assert tokens[timed].mean() == pytest.approx(tokens.mean(), rel=0.25), "their tokens come near"
    ranks = np.argsort(np.argsort(tokens, kind="stable"))[timed]
    distances = np.abs(2 * ranks + 1 - n_steps)
    assert distances[0] <= distances.mean() <= distances[-1], "typical ones first"
