"""The bag model: item vectors that read texts, pooled over a history, and a softmax over all items."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.corpora.history_sets import (
    HistorySetBatch,
    HistorySetCorpus,
    HistorySetOptions,
    HistorySets,
    history_sets,
)
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.item_vectors.recommender import ItemVectorNet, ItemVectorRecommender
from cllm4rec.models.pooling.config import BagConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import multinomial_nll
from cllm4rec.training.objective import Objective


class BagNet(ItemVectorNet):
    """Item vectors z = e + t; a history's state is the layer norm of their sum."""

    config: BagConfig

    def states(self, sets: HistorySets, vectors: Tensor) -> Tensor:
        """States (B, d) of histories, zero for an empty one.

        Args:
            sets: the histories.
            vectors: of all items (n_items, d).
        """
        starts = sets.lengths.cumsum(0) - sets.lengths
        summed = functional.embedding_bag(sets.items, vectors, starts, mode="sum")
        return functional.layer_norm(summed, summed.shape[1:])

    def forward(self, objective: str, batch: HistorySetBatch) -> dict[str, Tensor]:
        """Negative log-likelihood of the masked items by the softmax over the others, summed."""
        assert batch.excluded is not None
        vectors = self.item_vectors()
        targets, left_out = (
            (batch.target_rows, batch.target_items),
            (batch.excluded.rows, batch.excluded.items),
        )
        return {objective: multinomial_nll(self.states(batch, vectors), vectors, *targets, *left_out)}


class Bag(ItemVectorRecommender):
    """CLLM4Rec's finetuning without a language model: what item vectors that read texts can do alone.

    A random share of a history is masked and predicted from the rest, as in CLLM4Rec (the multinomial item
    prediction). Nothing else is learned than the item vectors.
    """

    name = "bag"
    config_class = BagConfig
    config: BagConfig
    net: BagNet

    def check(self, dataset: Dataset) -> None:
        super().check(dataset)
        if not (np.diff(dataset.train.interactions.indptr) > 1).any():
            raise ValueError("no user has two training events: there is nothing to predict from another item")

    def _new_net(self, n_items: int) -> BagNet:
        return BagNet(self.config, n_items)

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        options = HistorySetOptions(mask_share=self.config.mask_share, targets="unseen", seed=config.seed)
        return [Objective("recommend", HistorySetCorpus(train.interactions, options))]

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        sets = history_sets(seen.interactions.histories(users)).to(self.device)
        vectors = self.item_vectors()
        return self.net.states(sets, vectors), vectors

    def _item_vectors(self) -> Tensor:
        return self.net.eval().item_vectors()
