"""Histories that are contrasted with a sample of the items."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.base import as_tensor
from cllm4rec.corpora.history_sets import HistorySetBatch, HistorySetCorpus, HistorySetOptions
from cllm4rec.corpora.item_sampler import ItemSampler
from cllm4rec.data.interactions import Interactions


@dataclass(frozen=True, kw_only=True)
class ContrastBatch(HistorySetBatch):
    """Histories, all of whose items are targets, and the items that they are contrasted with.

    Attributes:
        negatives: int64 (S,), item numbers, ascending; the same for all histories.
        log_p: float32 (S,), log of the probability that the sample holds each of them.
    """

    negatives: Tensor
    log_p: Tensor


class ContrastCorpus(HistorySetCorpus):
    """Histories, and a sample of the items for each step.

    Args:
        train: the training events.
        n_negatives: size of the sample; if there are no more items, all are negatives.
        seed: of the order of the users and of the samples.
    """

    def __init__(self, train: Interactions, n_negatives: int, seed: int) -> None:
        super().__init__(train, HistorySetOptions(seed=seed))
        self.n_items = train.n_items
        few = n_negatives >= train.n_items
        self.sampler = None if few else ItemSampler(train, n_negatives, seed, self.stream)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> ContrastBatch:
        items = np.arange(self.n_items) if self.sampler is None else self.sampler.draw(epoch, step)
        log_p = torch.zeros(len(items))
        if self.sampler is not None:
            log_p = as_tensor(self.sampler.log_inclusion(items))
        histories = vars(super().batch(examples, epoch, step))
        return ContrastBatch(**histories, negatives=as_tensor(items), log_p=log_p)
