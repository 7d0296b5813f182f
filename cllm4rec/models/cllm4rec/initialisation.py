"""Initialisation of the ID tables: random, from the item titles, or from factors of the training events.

The factors are computed here, not by the `implicit` library. That is an optional extra, has its own random
initialisation and runs its own threads, so that training would depend on it and on the machine.
"""

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.audit import learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.language.backbone import Backbone

# Standard deviation of factors over that of random embeddings: FACTOR_SCALE x n / (n + FACTOR_EVENTS), with n
# events an item on average. Chosen on validation events: factors of few events say little.
FACTOR_SCALE, FACTOR_EVENTS = 2.0, 50.0
PENALTY, CONFIDENCE = 60.0, 20.0  # of the factorisation
ALTERNATIONS, GRADIENT_STEPS = 15, 3
EVENTS_AT_ONCE = 1 << 20


def check_start(start: str, train: Dataset) -> None:
    """Raise ValueError if `start` is "title" and the items have no titles."""
    if start == "title" and "title" not in train.item_texts:
        raise ValueError(
            "`start=title` needs titles of the items: prepare the dataset with a table of items that has "
            "titles, or give another `start`"
        )


def initial_id_embeddings(
    start: str, backbone: Backbone, tokenizer: ExtendedTokenizer, train: Dataset, seed: int
) -> tuple[Tensor, Tensor]:
    """Initial collaborative and content embeddings, two equal tables (I + J, d).

    Args:
        start: "random"; "title", the mean token embedding of each item's title; or "factors", from
            `als_factors`.
        backbone: of the network.
        tokenizer: of the backbone.
        train: the training events.
        seed: of the random numbers.

    Raises:
        ValueError: `start` is "title" and the items have no titles.
    """
    check_start(start, train)
    shape = (train.n_users + train.n_items, backbone.width)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(shape, generator=generator) * ID_EMBEDDING_STD
    if start == "title":
        token_embeddings = backbone.token_embeddings.detach().float().cpu()
        for item, tokens in enumerate(tokenizer.encode_texts(train.item_texts["title"])):
            if len(tokens):
                mean = token_embeddings[torch.from_numpy(tokens)].mean(0)
                table[train.n_users + item] = backbone.as_ids(mean)
    elif start == "factors":
        factors = torch.from_numpy(als_factors(train.interactions, backbone.width, seed))
        # an ID without training events has no factors and stays random
        has_factors = factors.norm(dim=1) > 1e-6
        if has_factors.any():
            events = len(train.interactions.items) / train.n_items
            scale = FACTOR_SCALE * events / (events + FACTOR_EVENTS) * ID_EMBEDDING_STD
            scale /= float(factors[has_factors].std())
            table[has_factors, : factors.shape[1]] = factors[has_factors] * scale
    return table, table.clone()


def als_factors(train: Interactions, width: int, seed: int) -> np.ndarray:
    """Factors of users and items, float32 (I + J, rank), rank = min(width, I, J).

    They come from weighted alternating least squares (Hu, Koren and Volinsky, 2008: factors X and Y). Each
    alternation takes a few steps of conjugate gradients (Takács, Pilászy and Tikk, 2011).

    The backbone reads a user from the items of a history. Both sides are therefore transformed: with
    R = (Y^T Y + penalty)^(1/2), items are Y R^-1 and users X R. Then the inner product of a history's summed
    items with an item approximates the score of a folded-in user.
    """
    learns_from("initial factors", train)
    matrix = train.matrix  # (I, J)
    rank = min(width, *matrix.shape)
    generator = np.random.default_rng(seed)
    items = (generator.standard_normal((matrix.shape[1], rank)) * 0.01).astype(np.float32)
    users = np.zeros((matrix.shape[0], rank), dtype=np.float32)
    transposed = matrix.T.tocsr()
    for _ in range(ALTERNATIONS):
        users = _least_squares(matrix, items, users)
        items = _least_squares(transposed, users, items)
    values, vectors = np.linalg.eigh((items.T @ items).astype(np.float64) + PENALTY * np.eye(rank))
    root, inverse_root = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))  # (rank, rank)
    sides = users @ root, items @ inverse_root
    return np.concatenate([side / max(float(side.std()), 1e-30) for side in sides]).astype(np.float32)


def _least_squares(matrix: sp.csr_matrix, fixed: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Factors x (n, rank) of the rows, given those of the columns.

    A row's x minimises the sum over all cells of c (seen - x . fixed)^2, plus PENALTY |x|^2. The confidence c
    is CONFIDENCE at seen cells and 1 elsewhere.

    Args:
        matrix: (n, m), 1 at seen cells.
        fixed: factors of the columns (m, rank).
        start: initial x (n, rank) of the conjugate gradients.
    """
    gram = fixed.T @ fixed + np.float32(PENALTY) * np.eye(fixed.shape[1], dtype=np.float32)  # (rank, rank)
    solution = np.empty_like(start)
    # blocks of rows with at most about EVENTS_AT_ONCE seen cells
    boundaries = np.searchsorted(matrix.indptr, np.arange(0, matrix.nnz + EVENTS_AT_ONCE, EVENTS_AT_ONCE))
    for begin, end in pairwise(np.unique(np.minimum([0, *boundaries], matrix.shape[0]))):
        seen, x = matrix[begin:end], start[begin:end].copy()  # (b, m), (b, rank)
        rows = np.repeat(np.arange(end - begin), np.diff(seen.indptr))  # (nnz,)

        def normal_product(x: np.ndarray, seen: sp.csr_matrix = seen, rows: np.ndarray = rows) -> np.ndarray:
            """Product (b, rank) of each row's normal matrix with its x."""
            extra = (CONFIDENCE - 1) * np.einsum("nd,nd->n", x[rows], fixed[seen.indices])  # (nnz,)
            return np.asarray(
                x @ gram + sp.csr_matrix((extra, seen.indices, seen.indptr), seen.shape) @ fixed
            )

        residual = CONFIDENCE * (seen @ fixed) - normal_product(x)
        direction, squared_norm = residual, np.square(residual).sum(1)  # (b, rank), (b,)
        for _ in range(GRADIENT_STEPS):
            image = normal_product(direction)
            step = squared_norm / np.maximum((direction * image).sum(1), 1e-30)
            x += step[:, None] * direction
            residual = residual - step[:, None] * image
            squared_norm, before = np.square(residual).sum(1), squared_norm
            direction = residual + (squared_norm / np.maximum(before, 1e-30))[:, None] * direction
        solution[begin:end] = x
    return solution
