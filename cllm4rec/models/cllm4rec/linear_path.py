"""A linear item-item model next to the network: the scores of EASE, added to the finetuned logits."""

import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.messages import error_line
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.baselines.item_inverse import blocks_of_rows
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.fitted import FittedModule
from cllm4rec.models.inner_product import LinearScores
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.readings.text_vectors import has_text_vectors
from cllm4rec.models.validation import shared_validation
from cllm4rec.training.hooks import NO_HOOKS, Hooks
from cllm4rec.training.records import VALIDATION_METRIC
from cllm4rec.training.resume import Stopped

log = logging.getLogger("cllm4rec")

MOST_ENTRIES = 500  # of a row of B: the largest
NEW_AT_ONCE = 1024  # items that are added to a path
MOST_ITEMS = 15_000  # of a path that `auto` has: its time grows with their cube, its memory with their square
# Settings of EASE, the same for all datasets (w is chosen for each). Others were not searched.
PENALTY, PRIOR_PENALTY, PRIOR_SHARE = 400.0, 20.0, 0.9
# Weights of a history's item relative to the next newer one, for histories in time order. w is chosen first.
FIRST_DECAY, DECAYS = 0.8, (1.0, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
WEIGHTS = (0.0, *(2.0**power for power in range(10)))  # candidates of w; 0: without the path


def no_path(config: CLLM4RecConfig, dataset: Dataset) -> str:
    """Why there is no linear path; "" if there is one."""
    auto = config.linear == "auto"
    if config.linear == "none":
        return "`linear` is none"
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
    """`path_model`, checked on the data. With `auto`, unreadable text vectors only cause a warning.

    Raises:
        ValueError: there are no validation events, or `ease-text` cannot read vectors of texts.
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
        if config.linear != "auto":
            raise ValueError(
                f"`linear={config.linear}` cannot read vectors of texts: take `linear=ease`, which needs "
                f"none ({error})"
            ) from error
        log.warning("the linear path reads no texts (%s)", error)
        return EASE(EASEConfig(regularization=PENALTY))
    return model


class LinearPath(FittedModule):
    """w x B, added to the logits of a history x: B (J, J) is fitted in closed form.

    An item of x is decay ** (number of later items), where histories are in time order, else 1.

    Attributes:
        weight: w, (1,); chosen on validation events after finetuning. A w that is learned with the network
            is no better, as B was fitted on the masked items too.
        decay: (1,); chosen likewise.
        starts, columns, values: B in compressed rows.
    """

    weight: Tensor
    decay: Tensor
    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, n_items: int, n_entries: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1))
        self.register_buffer("decay", torch.ones(1))
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
        """The path of a saved model, before its numbers are read; None if it has none.

        Args:
            shapes: of the arrays in its model.safetensors, by name.
            prefix: of their names.
        """
        if prefix + "values" not in shapes:
            return None
        return cls(shapes[prefix + "starts"][0] - 1, shapes[prefix + "values"][0])

    def among(self, shares: sp.csr_matrix, new: np.ndarray) -> "LinearPath":
        """The path P' B P among other items, of which new ones are mixtures of known ones.

        Rows and columns of new items have their `MOST_ENTRIES` largest entries.

        Args:
            shares: P, float32 (J, n), the share of each known item in each of the n items.
            new: bool (n,), items that are mixtures.
        """
        known = sp.csr_matrix(shares @ sp.diags_array((~new).astype(np.float32)))
        blocks = []  # rows of P' B P, and of P' B' P, of the new items
        mixtures, matrix = shares.T.tocsr()[new], self.matrix
        for start in range(0, max(1, mixtures.shape[0]), NEW_AT_ONCE):
            mixed = mixtures[start : start + NEW_AT_ONCE]
            pair = mixed @ matrix @ shares, mixed @ matrix.T @ known
            blocks.append([largest_of_rows(sp.csr_matrix(each), MOST_ENTRIES) for each in pair])
        rows, columns = (sp.vstack(each, format="csr") for each in zip(*blocks, strict=True))
        place = sp.eye_array(len(new), format="csr", dtype=np.float32)[:, new]  # (n, new items)
        path = LinearPath.of(sp.csr_matrix(known.T @ matrix @ known + place @ rows + columns.T @ place.T))
        path.weight.copy_(self.weight)
        path.decay.copy_(self.decay)
        return path

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        """B, float32 (J, J)."""
        arrays = (array.cpu().numpy() for array in (self.values, self.columns, self.starts))
        n_items = len(self.starts) - 1
        return sp.csr_matrix(tuple(arrays), shape=(n_items, n_items))

    def scores(self, users: np.ndarray, events: Interactions) -> LinearScores:
        """w x B of users (B,) with these events."""
        decay = round(float(self.decay), 6)
        histories, rows = events.matrix, users
        if decay != 1.0:
            histories, rows = events.decayed(users, decay), np.arange(len(users))
        return LinearScores(histories, rows, self.matrix, float(self.weight))


def largest_of_rows(matrix: sp.csr_matrix, most: int) -> sp.csr_matrix:
    """The entries of largest absolute value of each row of a sparse matrix, at most `most`."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -np.abs(matrix.data), rows))
    kept = order[np.arange(len(order)) - matrix.indptr[rows] < most]  # the rows are in their order
    cells = matrix.data[kept], (rows[kept], matrix.indices[kept])
    return sp.csr_matrix(cells, shape=matrix.shape)


def largest_entries(weights: np.ndarray, most: int) -> sp.csr_matrix:
    """The entries of largest absolute value of each row (J,), at most `most`, zeros left out."""
    blocks = []
    for rows in blocks_of_rows(len(weights)):
        block = weights[rows]
        if most < block.shape[1]:
            places = np.argpartition(-np.abs(block), most, axis=1)[:, most:]
            block = block.copy()
            np.put_along_axis(block, places, 0.0, axis=1)
        blocks.append(sp.csr_matrix(block))
    return sp.vstack(blocks, format="csr")


def add_linear_path(
    model: NeuralRecommender, ease: EASE, dataset: Dataset, accelerator: Accelerator, hooks: Hooks = NO_HOOKS
) -> bool:
    """Add a linear path to a finetuned network, with the weight that is best on validation events.

    Of equal weights the smallest is taken; 0 adds nothing. Where histories are in time order, the decay is
    chosen after the weight. The main process fits EASE, and all processes validate. Where memory does not
    suffice there is a warning and no path, so that the training is not lost.

    Args:
        model: its `net` gets the path as `linear`.
        ease: to be fitted.
        dataset: with validation events.
        accelerator: of the processes.
        hooks: asked whether to stop.

    Returns:
        Whether there is a path now.

    Raises:
        Stopped: `hooks.should_stop` returned True on any process.
    """
    stop_if_asked(accelerator, hooks)
    fitted: list[sp.csr_matrix | None] = [None]
    if accelerator.is_main_process:
        try:
            fitted = [largest_entries(ease.fit(dataset).weights, MOST_ENTRIES)]
            del ease.weights  # before the validations
        except (MemoryError, np.linalg.LinAlgError) as error:
            log.warning("no linear path: %s", error_line(error))
    (matrix,) = broadcast_object_list(fitted)
    stop_if_asked(accelerator, hooks)
    if matrix is None:
        return False
    path, in_time = LinearPath.of(matrix), model.net.config.order == "time"
    weight, decay, quality, plain = _best_weight(path, in_time, model, dataset, accelerator)
    name = "ease with text prior" if ease.config.text_prior else "ease"
    if weight:
        path.weight.fill_(weight)
        path.decay.fill_(decay)
        model.net.linear = path
        line = f"linear path: {name}, weight {weight:g}{f', decay {decay:g}' if in_time else ''}: validation "
        line += f"{VALIDATION_METRIC} {quality:.4f}, without it {plain:.4f}"
    else:
        line = f"no linear path: {name} does not raise validation {VALIDATION_METRIC} {plain:.4f}"
    if accelerator.is_main_process:
        log.info(line)
    return weight > 0


def _best_weight(
    path: LinearPath, in_time: bool, model: NeuralRecommender, dataset: Dataset, accelerator: Accelerator
) -> tuple[float, float, float, float]:
    """The best weight and decay of a path, the validation metric with them, and that without the path.

    Args:
        path: of the network while it is validated.
        in_time: whether histories are in time order, so that a decay is chosen.
        model, dataset, accelerator: as in `add_linear_path`.
    """
    quality: dict[tuple[float, float], float] = {}  # weight and decay -> the metric, in the order tried

    def best_of(choices: Iterable[tuple[float, float]]) -> tuple[float, float]:
        for weight, decay in choices:
            path.weight.fill_(weight)
            path.decay.fill_(decay)
            quality[weight, decay] = shared_validation(model, dataset, accelerator)
        return max(quality, key=quality.__getitem__)

    try:
        model.net.linear = path
        best = best_of((weight, FIRST_DECAY if in_time else 1.0) for weight in WEIGHTS)
        plain = quality[0.0, best[1]]
        if best[0] and in_time:
            best = best_of([(best[0], decay) for decay in DECAYS])
    finally:
        model.net.linear = None
    return *best, quality[best], plain


def stop_if_asked(accelerator: Accelerator, hooks: Hooks) -> None:
    """Raise Stopped if any process was asked to stop; all processes call it."""
    asked = torch.tensor([float(hooks.should_stop())], device=accelerator.device)
    if accelerator.reduce(asked).item():
        raise Stopped("after the last epoch")
