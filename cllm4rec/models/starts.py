"""Where the ID tables start: at random, at the words of the title, or at factors of the training events."""

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.backbone import TABLE_SPREAD, Backbone
from cllm4rec.text.tokenizer import ExtendedTokenizer

FACTOR_SCALE = 2.0  # spread of factors against that of a random start: chosen on ml-100k's validation events


def starting_tables(
    start: str, backbone: Backbone, tokenizer: ExtendedTokenizer, train: Dataset, seed: int
) -> tuple[Tensor, Tensor]:
    """The collaborative and the content table, (I + J, d) each; both start from the same place."""
    shape = (train.n_users + train.n_items, backbone.width)
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(shape, generator=generator) * TABLE_SPREAD
    if start == "title":
        if "title" not in train.item_texts:
            raise ValueError("--start title needs titles of the items: give --items with a title column, or another start")
        words = backbone.words.detach().float().cpu()
        for item, ids in enumerate(tokenizer.encode_texts(train.item_texts["title"])):
            if len(ids):
                table[train.n_users + item] = words[torch.from_numpy(ids)].mean(0) * backbone.word_scale / backbone.id_scale
    elif start == "factors":
        factors = torch.from_numpy(event_factors(train.interactions, backbone.width, seed))
        known = factors.norm(dim=1) > 1e-6  # an ID without training events has no factors and starts at random
        if known.any():
            table[known, : factors.shape[1]] = factors[known] * (FACTOR_SCALE * TABLE_SPREAD / factors[known].std())
    return table, table.clone()


def event_factors(train: Interactions, width: int, seed: int) -> np.ndarray:
    """Users and items from a truncated singular value decomposition of the training events, float32 (I + J, rank).

    The matrix has its rows and columns divided by the fourth root of their events, halfway between raw counts (popular
    items take all factors) and cosine. Singular values s shrink as in a linear autoencoder with an L2 penalty,
    s^2 / (s^2 + s_m^2), with m a sixteenth of the width; users and items get its square root each, so that the inner
    product of a history's summed items with an item is that autoencoder's score. rank = min(width, I - 1, J - 1).
    """
    matrix = train.matrix.astype(np.float64)
    rank = min(width, min(matrix.shape) - 1)
    if rank < 1:  # one user or one item: there is nothing to factorise
        return np.zeros((sum(matrix.shape), 1), dtype=np.float32)
    by_user = sp.diags(np.maximum(np.asarray(matrix.sum(1)).ravel(), 1) ** -0.25)
    by_item = sp.diags(np.maximum(np.asarray(matrix.sum(0)).ravel(), 1) ** -0.25)
    begin = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    left, values, right = svds(by_user @ matrix @ by_item, k=rank, v0=begin)
    penalty = np.sort(values)[::-1][min(rank - 1, width // 16)]
    values[values < 1e-9 * values.max()] = 0.0  # data of a lower rank: no more factors than it has
    shrunk = values / np.sqrt(np.maximum(values**2 + penalty**2, 1e-30))
    return (np.concatenate([left, right.T]) * shrunk).astype(np.float32)
