"""The bag model: item vectors that read texts, pooled over a history, and a softmax over all items."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.history_sets import (
    HistorySetBatch,
    HistorySetCorpus,
    HistorySetOptions,
    HistorySets,
    history_sets,
)
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.description import ModelDescription, Shapes, check_shapes
from cllm4rec.models.item_vectors.sources import check_sources, item_sources
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.pooling.config import BagConfig
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import multinomial_nll
from cllm4rec.training.objective import Objective


class BagNet(nn.Module):
    """Item vectors z = e + t; a history's state is the layer norm of their sum.

    Attributes:
        items: e, (n_items, d).
        item_text: t; None for nothing.
    """

    def __init__(self, config: BagConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Parameter(torch.randn(n_items, config.width) * ID_EMBEDDING_STD)
        self.item_text: TextEmbeddings | None = None

    def item_vectors(self) -> Tensor:
        """The vectors of all items (n_items, d)."""
        return self.items if self.item_text is None else self.item_text.added_to(self.items)

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

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the item embeddings and those of texts."""
        return {
            "items": [self.items],
            "texts": [] if self.item_text is None else [*self.item_text.parameters()],
        }

    def diagnostics(self) -> dict[str, float]:
        """None."""
        return {}


class Bag(NeuralRecommender):
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
        check_sources(self.config, dataset)
        if not (np.diff(dataset.train.interactions.indptr) > 1).any():
            raise ValueError("no user has two training events: there is nothing to predict from another item")

    def _build(self, train: Dataset, seed: int) -> BagNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = BagNet(self.config, train.n_items)
        net.item_text = TextEmbeddings.of(self.config, item_sources(self.config, train), self.config.width)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> BagNet:
        with reading(folder, REMEDY):
            check_shapes(lambda: BagNet(self.config, len(self.item_ids)), shapes)
        net = BagNet(self.config, len(self.item_ids))
        net.item_text = TextEmbeddings.of_shapes(self.config, shapes, "item_text.")
        return net

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        options = HistorySetOptions(mask_share=self.config.mask_share, targets="unseen", seed=config.seed)
        return [Objective("recommend", HistorySetCorpus(train.interactions, options))]

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        sets = history_sets(seen.interactions.histories(users)).to(self.device)
        vectors = self.net.eval().item_vectors()
        return self.net.states(sets, vectors), vectors.detach()
