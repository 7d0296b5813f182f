"""Batches of examples of similar length, and the steps that a dry run times."""

import numpy as np
import pytest

from cllm4rec.corpora.base import Batch, Corpus
from cllm4rec.training.batching import SORTED_BATCHES, grouped_by_length
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.dry_run import TIMED_STEPS, _typical_steps
from cllm4rec.training.objective import Objective


class LengthsAlone(Corpus):
    """Examples with lengths and no content."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def selection(self, epoch: int) -> np.ndarray:
        return np.arange(len(self.lengths))

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        raise NotImplementedError


def test_batches_of_similar_length_are_shuffled_anew_in_each_epoch() -> None:
    """Examples of a batch have similar lengths. Batches neither ascend nor repeat their order."""
    lengths = np.random.default_rng(0).integers(5, 100, 8 * SORTED_BATCHES * 2 + 3)
    corpus, config = LengthsAlone(lengths), TrainConfig(batch_size=8)
    orders: list[list[float]] = []
    for epoch in (0, 1):
        order = grouped_by_length(corpus.selection(epoch), lengths, config, epoch)
        assert sorted(order.tolist()) == list(range(len(lengths))), "each example once"
        of_group = lengths[order[: 8 * SORTED_BATCHES]].reshape(SORTED_BATCHES, 8)
        means = of_group.mean(1)
        assert np.ptp(of_group, axis=1).mean() < np.ptp(means) / 5, "of similar length"
        assert 0.25 < (np.diff(means) > 0).mean() < 0.75, "up as often as down"
        orders.append(means.tolist())
    assert orders[0] != orders[1]


@pytest.mark.parametrize("n_steps", [1, 5, 40])
def test_the_steps_that_a_dry_run_times_are_typical_of_the_epoch(n_steps: int) -> None:
    """A few examples are very long: evenly spaced steps would miss them or count them too often."""
    corpus = LengthsAlone(np.random.default_rng(0).pareto(1.5, 8 * n_steps).astype(np.int64) + 5)
    config = TrainConfig(batch_size=8)
    (first, *timed), step_lengths = _typical_steps(Objective("any", corpus), config)
    order = grouped_by_length(corpus.selection(0), corpus.lengths, config, 0)
    tokens = corpus.lengths[order].reshape(n_steps, 8).sum(1)
    assert step_lengths.tolist() == tokens.tolist()
    assert first in timed, "warmed up by one of them"
    assert len(set(timed)) == len(timed) == min(n_steps, TIMED_STEPS)
    assert tokens[timed].mean() == pytest.approx(tokens.mean(), rel=0.25), "their tokens come near"
    ranks = np.argsort(np.argsort(tokens, kind="stable"))[timed]
    distances = np.abs(2 * ranks + 1 - n_steps)
    assert distances[0] <= distances.mean() <= distances[-1], "typical ones first"
