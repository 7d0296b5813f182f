"""A linear item-item model beside the network: what EASE says, in the logits."""

import logging
from collections.abc import Mapping
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.fitted import FittedModule, entries_of
from cllm4rec.models.readings.text_vectors import has_text_vectors

MOST_ENTRIES = 500  # of a row of B: the largest
# The weight w before training, chosen on validation events. Training alone would raise it too far, as B was
# fitted on the masked items too.
START = 4.0
MOST_ITEMS = 5_000  # of a path that `auto` has: its time grows with their cube


class PathEASE(EASE):
    """The model of a linear path: what it tries is no line of the log."""

    level_of_tried = logging.DEBUG


def no_path(config: CLLM4RecConfig, dataset: Dataset) -> str:
    """Why there is no linear path; "" if there is one."""
    auto = config.linear == "auto"
    if config.linear == "none":
        return "`linear` is none"
    if config.sampled:
        return "the softmax is sampled"
    if auto and config.order != "random":
        return f"histories are in the order of {config.order}"
    if auto and not len(dataset.validation.interactions):
        return "there are no validation events"
    if auto and dataset.n_items > MOST_ITEMS:
        return f"there are more than {MOST_ITEMS:,} items"
    return ""


def path_model(config: CLLM4RecConfig, dataset: Dataset) -> PathEASE | None:
    """The model of the linear path, to be fitted; None for no path."""
    if no_path(config, dataset):
        return None
    reads_texts = config.linear == "ease-text"
    if config.linear == "auto":
        reads_texts = config.item_text != "none" and has_text_vectors(config, dataset)
    if not reads_texts:
        return PathEASE()
    return PathEASE(EASEConfig(text_prior=True, encoder=config.encoder, item_vectors=config.item_vectors))


class LinearPath(FittedModule):
    """w x B, added to the logits of a history x: B (J, J) is fitted in closed form and kept, w is learned.

    Attributes:
        weight: w.
        starts, columns, values: B in compressed rows.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, n_items: int, n_entries: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([START]))
        self.register_buffer("starts", torch.zeros(n_items + 1, dtype=torch.int64))
        self.register_buffer("columns", torch.zeros(n_entries, dtype=torch.int64))
        self.register_buffer("values", torch.zeros(n_entries))

    @classmethod
    def of(cls, weights: np.ndarray) -> Self:
        """The path of an item-item matrix, float32 (J, J), of which each row keeps its largest entries."""
        kept = largest_entries(weights, MOST_ENTRIES)
        new = cls(len(weights), kept.nnz)
        new.starts.copy_(torch.from_numpy(kept.indptr))
        new.columns.copy_(torch.from_numpy(kept.indices))
        new.values.copy_(torch.from_numpy(kept.data))
        return new

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]], prefix: str) -> Self | None:
        """The path of a saved model, without its numbers; None if it has none.

        Args:
            shapes: of the arrays in its model.safetensors, by name.
            prefix: of their names.
        """
        if prefix + "values" not in shapes:
            return None
        return cls(shapes[prefix + "starts"][0] - 1, shapes[prefix + "values"][0])

    def forward(self, rows: Tensor, items: Tensor, n_rows: int) -> Tensor:
        """w x B (n_rows, J) of histories.

        Args:
            rows: (P,), the history of each item.
            items: (P,), item numbers.
            n_rows: number of histories.
        """
        n_items = len(self.starts) - 1
        entries, counts = entries_of(self.starts, items)
        places = rows.repeat_interleave(counts) * n_items + self.columns[entries]
        summed = self.values.new_zeros(n_rows * n_items).index_add_(0, places, self.values[entries])
        return self.weight * summed.view(n_rows, n_items)

    @property
    def matrix(self) -> sp.csr_matrix:
        """B, float32 (J, J)."""
        arrays = (array.cpu().numpy() for array in (self.values, self.columns, self.starts))
        n_items = len(self.starts) - 1
        return sp.csr_matrix(tuple(arrays), shape=(n_items, n_items))


def largest_entries(weights: np.ndarray, most: int) -> sp.csr_matrix:
    """The entries of largest absolute value of each row (J,), at most `most`, zeros left out."""
    n = len(weights)
    if most < n:
        columns = np.argpartition(-np.abs(weights), most, axis=1)[:, :most]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(n), (n, n))
    rows = np.repeat(np.arange(n), columns.shape[1])
    values = np.take_along_axis(weights, columns, axis=1)
    kept = sp.csr_matrix((values.ravel(), (rows, columns.ravel())), shape=weights.shape)
    kept.eliminate_zeros()
    return kept
