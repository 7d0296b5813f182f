"""Where the ID tables start: at random, at the words of the title, or at factors of the training events."""

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.language.backbone import ID_EMBEDDING_STD, Backbone

FACTOR_SCALE = 2.0  # spread of factors against that of a random start: chosen on ml-100k's validation events
PENALTY, CONFIDENCE = 60.0, 20.0  # of the factorisation
ALTERNATIONS, GRADIENT_STEPS = 15, 3
EVENTS_AT_ONCE = 1 << 20


def initial_id_embeddings(
    start: str, backbone: Backbone, tokenizer: ExtendedTokenizer, train: Dataset, seed: int
) -> tuple[Tensor, Tensor]:
    """The collaborative and the content table, (I + J, d) each; both start from the same place."""
    shape = (train.n_users + train.n_items, backbone.width)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(shape, generator=generator) * ID_EMBEDDING_STD
    if start == "title":
        if "title" not in train.item_texts:
            raise ValueError(
                "--start title needs titles of the items: give --items with a title column, or another start"
            )
        words = backbone.words.detach().float().cpu()
        for item, ids in enumerate(tokenizer.encode_texts(train.item_texts["title"])):
            if len(ids):
                table[train.n_users + item] = (
                    words[torch.from_numpy(ids)].mean(0) * backbone.word_scale / backbone.id_scale
                )
    elif start == "factors":
        factors = torch.from_numpy(als_factors(train.interactions, backbone.width, seed))
        known = (
            factors.norm(dim=1) > 1e-6
        )  # an ID without training events has no factors and starts at random
        if known.any():
            table[known, : factors.shape[1]] = factors[known] * (
                FACTOR_SCALE * ID_EMBEDDING_STD / factors[known].std()
            )
    return table, table.clone()


def als_factors(train: Interactions, width: int, seed: int) -> np.ndarray:
    """Users and items from a factorisation of the training events, float32 (I + J, rank), rank = min(width, I, J).

    Weighted alternating least squares (Hu, Koren and Volinsky, 2008: factors X and Y), by a few steps of conjugate
    gradients each (Takács, Pilászy and Tikk, 2011). A user is not looked up but read from the items of a history, so both
    sides are turned: with R = (Y^T Y + penalty)^(1/2), items are Y R^-1 and users X R. The inner product of a history's summed
    items with an item is then about what folding the history in would give.
    """
    matrix = train.matrix
    rank = min(width, *matrix.shape)
    generator = np.random.default_rng(seed)
    items = (generator.standard_normal((matrix.shape[1], rank)) * 0.01).astype(np.float32)
    users = np.zeros((matrix.shape[0], rank), dtype=np.float32)
    transposed = matrix.T.tocsr()
    for _ in range(ALTERNATIONS):
        users = _least_squares(matrix, items, users)
        items = _least_squares(transposed, users, items)
    values, vectors = np.linalg.eigh((items.T @ items).astype(np.float64) + PENALTY * np.eye(rank))
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    turned = users @ root, items @ inverse
    return np.concatenate([side / max(float(side.std()), 1e-30) for side in turned]).astype(np.float32)


def _least_squares(matrix: sp.csr_matrix, fixed: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Rows x that lessen sum over cells of c (seen - x . fixed)^2 + PENALTY |x|^2, c = CONFIDENCE where seen and 1 elsewhere.

    Args:
        matrix: (n, m), ones where seen.
        fixed: (m, rank), the other side.
        start: (n, rank), where the conjugate gradients start.
    """
    gram = fixed.T @ fixed + np.float32(PENALTY) * np.eye(fixed.shape[1], dtype=np.float32)
    found = np.empty_like(start)
    at_once = np.searchsorted(matrix.indptr, np.arange(0, matrix.nnz + EVENTS_AT_ONCE, EVENTS_AT_ONCE))
    for begin, end in pairwise(np.unique(np.minimum([0, *at_once], matrix.shape[0]))):
        seen, x = matrix[begin:end], start[begin:end].copy()
        rows = np.repeat(np.arange(end - begin), np.diff(seen.indptr))

        def weighed(x: np.ndarray, seen: sp.csr_matrix = seen, rows: np.ndarray = rows) -> np.ndarray:
            own = (CONFIDENCE - 1) * np.einsum("nd,nd->n", x[rows], fixed[seen.indices])
            return np.asarray(x @ gram + sp.csr_matrix((own, seen.indices, seen.indptr), seen.shape) @ fixed)

        rest = CONFIDENCE * (seen @ fixed) - weighed(x)
        direction, size = rest, np.square(rest).sum(1)
        for _ in range(GRADIENT_STEPS):
            image = weighed(direction)
            step = size / np.maximum((direction * image).sum(1), 1e-30)
            x += step[:, None] * direction
            rest = rest - step[:, None] * image
            size, before = np.square(rest).sum(1), size
            direction = rest + (size / np.maximum(before, 1e-30))[:, None] * direction
        found[begin:end] = x
    return found
