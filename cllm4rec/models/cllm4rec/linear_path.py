"""A linear item-item model beside the network: what EASE says, added to the finetuned logits."""

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.fitted import FittedModule
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.readings.text_vectors import has_text_vectors
from cllm4rec.models.validation import shared_validation
from cllm4rec.training.records import VALIDATION_METRIC

log = logging.getLogger("cllm4rec")

MOST_ENTRIES = 500  # of a row of B: the largest
MOST_ITEMS = 15_000  # of a path that `auto` has: its time grows with their cube, its memory with their square
# Settings of EASE. Beside the network, others are hardly better: w makes up for most of the difference.
PENALTY, PRIOR_PENALTY, PRIOR_SHARE = 400.0, 20.0, 0.9
WEIGHTS = (0.0, *(2.0**power for power in range(9)))  # candidates of w; 0: without the path


def no_path(config: CLLM4RecConfig, dataset: Dataset) -> str:
    """Why there is no linear path; "" if there is one."""
    auto = config.linear == "auto"
    if config.linear == "none":
        return "`linear` is none"
    if auto and config.order != "random":
        return f"histories are in the order of {config.order}"
    if auto and not len(dataset.validation.interactions):
        return "there are no validation events"
    if auto and dataset.n_items > MOST_ITEMS:
        return f"there are more than {MOST_ITEMS:,} items"
    return ""


def path_model(config: CLLM4RecConfig, dataset: Dataset) -> EASE | None:
    """The model of the linear path, to be fitted; None for no path."""
    if no_path(config, dataset):
        return None
    reads_texts = config.linear == "ease-text"
    if config.linear == "auto":
        reads_texts = config.item_text != "none" and has_text_vectors(config, dataset)
    if not reads_texts:
        return EASE(EASEConfig(regularization=PENALTY))
    return EASE(
        EASEConfig(
            regularization=PENALTY,
            text_prior=True,
            prior_regularization=PRIOR_PENALTY,
            prior_share=PRIOR_SHARE,
            encoder=config.encoder,
            item_vectors=config.item_vectors,
        )
    )


def checked_path_model(config: CLLM4RecConfig, dataset: Dataset) -> EASE | None:
    """`path_model`, checked on the data.

    Raises:
        ValueError: there are no validation events, or texts or vectors cannot be read.
    """
    model = path_model(config, dataset)
    if model is None:
        return None
    if not len(dataset.validation.interactions):
        raise ValueError(
            f"`linear={config.linear}` chooses its weight on validation events and there are none: leave "
            "`linear` out, or prepare with a split"
        )
    try:
        model.check(dataset)
    except ValueError as error:
        raise ValueError(f"{error} (read by the linear path: `linear=ease` needs no vectors)") from error
    return model


class LinearPath(FittedModule):
    """w x B, added to the logits of a history x: B (J, J) is fitted in closed form.

    Attributes:
        weight: w, (1,); chosen on validation events after finetuning. A w that is learned with the network
            on training events grows too large, as B was fitted on the masked items too.
        starts, columns, values: B in compressed rows.
    """

    weight: Tensor
    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, n_items: int, n_entries: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1))
        self.register_buffer("starts", torch.zeros(n_items + 1, dtype=torch.int64))
        self.register_buffer("columns", torch.zeros(n_entries, dtype=torch.int64))
        self.register_buffer("values", torch.zeros(n_entries))

    @classmethod
    def of(cls, matrix: sp.csr_matrix) -> Self:
        """The path of B, float32 (J, J), with the weight 0."""
        new = cls(matrix.shape[0], matrix.nnz)
        new.starts.copy_(torch.from_numpy(matrix.indptr))
        new.columns.copy_(torch.from_numpy(matrix.indices))
        new.values.copy_(torch.from_numpy(matrix.data))
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

    @cached_property
    def by_columns(self) -> sp.csc_matrix:
        """B, float32 (J, J), computed once."""
        arrays = (array.cpu().numpy() for array in (self.values, self.columns, self.starts))
        n_items = len(self.starts) - 1
        return sp.csr_matrix(tuple(arrays), shape=(n_items, n_items)).tocsc()


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


def add_linear_path(model: NeuralRecommender, ease: EASE, dataset: Dataset, accelerator: Accelerator) -> bool:
    """Add a linear path to a finetuned network, with the weight that is best on validation events.

    Of equal weights the smallest is taken; 0 adds nothing. The main process fits EASE, and all processes
    validate.

    Args:
        model: its `net` gets the path as `linear`.
        ease: to be fitted.
        dataset: with validation events.
        accelerator: of the processes.

    Returns:
        Whether there is a path now.
    """
    fitted: list[sp.csr_matrix | None] = [None]
    if accelerator.is_main_process:
        fitted = [largest_entries(ease.fit(dataset).weights, MOST_ENTRIES)]
    path = LinearPath.of(broadcast_object_list(fitted)[0])
    model.net.linear = path
    quality = {}
    for weight in WEIGHTS:
        path.weight.fill_(weight)
        quality[weight] = shared_validation(model, dataset, accelerator)
    best = max(WEIGHTS, key=lambda weight: quality[weight])
    path.weight.fill_(best)
    name = "ease with text prior" if ease.config.text_prior else "ease"
    line = f"linear path: {name}, weight {best:g}: validation {VALIDATION_METRIC} {quality[best]:.4f}, "
    line += f"without it {quality[0.0]:.4f}"
    if not best:
        model.net.linear = None
        line = f"no linear path: {name} does not raise validation {VALIDATION_METRIC} {quality[0.0]:.4f}"
    if accelerator.is_main_process:
        log.info(line)
    return best > 0
