"""Systems whose network has one vector an item, to which its texts may add."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.adaptation import OldRows, adapted_texts, chosen_rows, copy_equal_shapes
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.description import ModelDescription, Shapes, check_shapes
from cllm4rec.models.item_vectors.sources import (
    TextSources,
    check_sources,
    item_sources,
    read_again_items,
)
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings, words_of_row
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.storage import REMEDY


class ItemVectorNet(nn.Module):
    """Item vectors z = e + t.

    Attributes:
        items: e, (n_items, d).
        item_text: t; None for nothing.
    """

    def __init__(self, config: Any, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Parameter(torch.randn(n_items, config.width) * ID_EMBEDDING_STD)
        self.item_text: TextEmbeddings | None = None

    def item_vectors(self) -> Tensor:
        """The vectors of all items (n_items, d)."""
        return self.items if self.item_text is None else self.item_text.added_to(self.items)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the item embeddings, those of texts, and the encoder."""
        texts = [] if self.item_text is None else [*self.item_text.parameters()]
        others = {id(self.items), *map(id, texts)}
        encoder = [p for p in self.parameters() if id(p) not in others]
        return {"items": [self.items], "texts": texts, "encoder": encoder}

    def diagnostics(self) -> dict[str, float]:
        """No further values."""
        return {}


class ItemVectorRecommender(NeuralRecommender):
    """Builds and restores an `ItemVectorNet` with what the texts of the items say."""

    config: Any
    net: ItemVectorNet

    @abstractmethod
    def _new_net(self, n_items: int) -> ItemVectorNet:
        """A network with random weights, without texts."""

    def check(self, dataset: Dataset) -> None:
        """Refuse texts and sources of vectors that are requested and not there."""
        super().check(dataset)
        check_sources(self.config, dataset)

    def _build(self, train: Dataset, seed: int) -> ItemVectorNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self._new_net(train.n_items)
        net.item_text = TextEmbeddings.of(self.config, item_sources(self.config, train), self.config.width)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> ItemVectorNet:
        with reading(folder, REMEDY):
            check_shapes(lambda: self._new_net(len(self.item_ids)), shapes)
        net = self._new_net(len(self.item_ids))
        net.item_text = TextEmbeddings.of_shapes(self.config, shapes, "item_text.")
        return net

    @property
    def _item_texts(self) -> TextEmbeddings | None:
        return self.net.item_text

    def _adapt(self, dataset: Dataset, rows: OldRows) -> None:
        old, config = self.net, self.config

        def further(before: TextSources) -> TextSources:
            return read_again_items(config, dataset.train, before, rows.reread)

        net = self._new_net(dataset.n_items)
        copy_equal_shapes(old, net)  # but the texts, which it has not yet
        net.item_text = adapted_texts(
            old.item_text, config, rows.items, further if rows.reread.any() else None, rows.lost_reviews
        )
        net.items.data = chosen_rows(old.items, rows.items)
        self.net = net.to(old.items.device).eval()

    @torch.no_grad()
    def _words_of_item(self, item: int) -> tuple[list[str], Tensor]:
        return words_of_row(self.net.item_text, item)
