"""AlphaRec's form: a learned map of frozen text vectors, smoothed over the training graph, and InfoNCE."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.history_sets import HistorySets, history_sets
from cllm4rec.data.audit import learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.damage import reading
from cllm4rec.models.description import ModelDescription, Shapes, check_shapes
from cllm4rec.models.fitted import FittedModule
from cllm4rec.models.item_vectors.sources import whitened
from cllm4rec.models.kept import KeptValue
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.pooling.config import AlphaRecConfig
from cllm4rec.models.pooling.contrast import ContrastBatch, ContrastCorpus
from cllm4rec.models.pooling.training_graph import TrainingGraph
from cllm4rec.models.readings.text_vectors import text_vectors
from cllm4rec.models.storage import REMEDY
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.losses import info_nce
from cllm4rec.training.objective import Objective


class ItemLayers(NamedTuple):
    """What histories and scores need of the items.

    Attributes:
        inner: W1 f_j, (n_items, hidden_width): the text vectors after the first layer, before its bias.
        passed: sum of the layers 0 .. K - 1 of the graph, divided by sqrt(events of the item),
            (n_items, width).
        outputs: sum of the layers 0 .. K, (n_items, width), divided by its length.
    """

    inner: Tensor
    passed: Tensor
    outputs: Tensor


class StoredItems(FittedModule):
    """What model.safetensors holds of the items: scoring needs neither their texts nor training events.

    Attributes:
        vectors: f, float32 (n_items, D), frozen.
        passed, outputs: as in `ItemLayers`; zero until the model is saved.
    """

    vectors: Tensor
    passed: Tensor
    outputs: Tensor

    def __init__(self, n_items: int, n_dimensions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(n_items, n_dimensions))
        self.register_buffer("passed", torch.zeros(n_items, width))
        self.register_buffer("outputs", torch.zeros(n_items, width))


class AlphaRecNet(nn.Module):
    """Items and users as a map of text vectors, and as means over K + 1 layers of the graph.

    The map is W2 LeakyReLU(W1 f + b1) + b2. Item j enters it with its vector f_j, a user with the mean of the
    vectors of the history. W1 times this mean is the mean of the history's W1 f_j, so no user vector is
    multiplied by W1.

    Attributes:
        hidden, output: the two layers of the map.
        items: their vectors, and their layers in a saved model.
        graph: of the training events; None in a model that was loaded.
    """

    def __init__(self, config: AlphaRecConfig, n_items: int, n_dimensions: int) -> None:
        super().__init__()
        self.config = config
        self._latest: KeptValue[ItemLayers] = KeptValue()
        self.hidden = nn.Linear(n_dimensions, config.hidden_width)
        self.output = nn.Linear(config.hidden_width, config.width)
        self.items = StoredItems(n_items, n_dimensions, config.width)
        self.graph: TrainingGraph | None = None

    def mapped(self, inner: Tensor) -> Tensor:
        """The map's outputs, float32 (n, width), from W1 f (n, hidden_width)."""
        mapped: Tensor = self.output(functional.leaky_relu(inner + self.hidden.bias))
        return mapped.float()

    def layers(self) -> ItemLayers:
        """The layers of all items. With a graph they come from the weights, by a pass over all its edges."""
        inner, graph = functional.linear(self.items.vectors, self.hidden.weight).float(), self.graph
        if graph is None:
            return ItemLayers(inner, self.items.passed, self.items.outputs)
        items, users = self.mapped(inner), self.mapped(graph.user_means(inner))
        total, passed = items, torch.zeros_like(items)
        for _ in range(self.config.layers):
            passed = passed + items
            items, users = graph.of_items(users), graph.of_users(items)
            total = total + items
        return ItemLayers(inner, passed * graph.users.degrees.rsqrt(), functional.normalize(total))

    def states(self, sets: HistorySets, layers: ItemLayers) -> Tensor:
        """States (B, width) of histories, of length 1: their layers 0 .. K, summed.

        Layer 0 is the map of the mean vector. Layer l + 1 sums the items' layers l over the history, each
        divided by sqrt(items of the history * events of the item). For the training history of a user it is
        the user's state in the graph.
        """
        starts, sizes = sets.lengths.cumsum(0) - sets.lengths, sets.lengths.clamp(min=1)[:, None]
        means = functional.embedding_bag(sets.items, layers.inner, starts, mode="sum") / sizes
        passed = functional.embedding_bag(sets.items, layers.passed, starts, mode="sum") * sizes.rsqrt()
        return functional.normalize(self.mapped(means) + passed)

    def forward(self, objective: str, batch: ContrastBatch) -> dict[str, Tensor]:
        """InfoNCE of all items of the histories, summed."""
        layers = self.layers()
        states = self.states(batch, layers) / self.config.temperature
        index = torch.searchsorted(batch.negatives, batch.items).clamp(max=len(batch.negatives) - 1)
        held = batch.negatives[index] == batch.items
        terms = info_nce(
            states,
            layers.outputs[batch.target_items],
            batch.target_rows,
            layers.outputs[batch.negatives],
            batch.log_p,
            (batch.item_rows[held], index[held]),
        )
        return {objective: terms}

    @torch.no_grad()
    def latest_layers(self) -> ItemLayers:
        """The layers for scoring; they are kept until a weight changes or training goes on."""
        return self._latest.of(self.parameters(), self.layers)

    def store_layers(self) -> None:
        """Write the layers of the present weights into `items`; a loaded model has them already."""
        if self.graph is not None:
            layers = self.latest_layers()
            self.items.passed.copy_(layers.passed)
            self.items.outputs.copy_(layers.outputs)

    def train(self, mode: bool = True) -> "AlphaRecNet":
        """Set the mode. Layers that were kept are freed: fused optimisers do not count their changes."""
        if mode != self.training:
            self._latest.free()
        return super().train(mode)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters: the map."""
        return {"map": list(self.parameters())}

    def diagnostics(self) -> dict[str, float]:
        """No further values."""
        return {}


class AlphaRec(NeuralRecommender):
    """Users and items are known by texts and by the graph alone: neither has an embedding of its own.

    Source: Sheng, Zhang, Zhang, Chen, Wang and Chua, "Language Representations Can Be What Recommenders Need:
        Findings and Potentials", 2025 (arXiv 2407.05441), and its code.
    """

    name = "alpharec"
    config_class = AlphaRecConfig
    config: AlphaRecConfig
    net: AlphaRecNet

    def check(self, dataset: Dataset) -> None:
        """Refuse texts or vectors that cannot be read."""
        super().check(dataset)
        text_vectors(self.config, dataset)

    def _build(self, train: Dataset, seed: int) -> AlphaRecNet:
        events = train.interactions
        learns_from("whitened vectors of texts", events)
        vectors = whitened(text_vectors(self.config, train), events.item_has_event)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = AlphaRecNet(self.config, train.n_items, vectors.shape[1])
        net.items.vectors.copy_(torch.from_numpy(vectors))
        net.graph = TrainingGraph(events)
        return net

    def _rebuild(self, folder: Path, described: ModelDescription, shapes: Shapes) -> AlphaRecNet:
        with reading(folder, REMEDY):
            n_dimensions = shapes["hidden.weight"][1]
            check_shapes(lambda: AlphaRecNet(self.config, len(self.item_ids), n_dimensions), shapes)
        return AlphaRecNet(self.config, len(self.item_ids), n_dimensions)

    def _arrays(self) -> dict[str, np.ndarray]:
        self.net.store_layers()
        return super()._arrays()

    def objectives(self, train: Dataset, stage: str, config: TrainConfig) -> list[Objective]:
        corpus = ContrastCorpus(train.interactions, self.config.negatives, config.seed)
        return [Objective("recommend", corpus)]

    @torch.no_grad()
    def _vectors(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> tuple[Tensor, Tensor]:
        sets = history_sets(seen.interactions.histories(users)).to(self.device)
        layers = self.net.eval().latest_layers()
        return self.net.states(sets, layers), layers.outputs

    def _item_vectors(self) -> Tensor:
        return self.net.eval().latest_layers().outputs
