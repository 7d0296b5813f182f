"""ItemKNN: nearest neighbours of the history's items by shrunk cosine similarity."""

import numpy as np
import scipy.sparse as sp

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.config import ItemKNNConfig
from cllm4rec.models.description import checked_array
from cllm4rec.models.one_stage import DECAY_GRID, Grid, OneStageRecommender, weighted_history

GRIDS = (
    Grid(
        fitting=tuple(
            {"neighbours": neighbours, "shrinkage": shrinkage}
            for neighbours in (50, 100, 200, 500)
            for shrinkage in (0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
        ),
        scoring=DECAY_GRID,
    ),
)


class ItemKNN(OneStageRecommender):
    """Deshpande and Karypis, "Item-based top-N recommendation algorithms", 2004.

    similarity(a, b) = |users of both| / (sqrt(|users of a| |users of b|) + shrinkage). Each item keeps its
    nearest neighbours. The score of an item is the sum of its similarities to the history.
    """

    name = "itemknn"
    config_class = ItemKNNConfig
    config: ItemKNNConfig

    def grids(self, dataset: Dataset) -> tuple[Grid, ...]:
        return GRIDS

    def _fit(self, train: Dataset, settings: ItemKNNConfig) -> None:
        assert settings.neighbours is not None and settings.shrinkage is not None
        matrix = train.interactions.matrix
        similarity = (matrix.T @ matrix).tocsr()  # (n_items, n_items), numbers of common users so far
        n_users = similarity.diagonal()
        rows = _row_indices(similarity)
        norms = np.sqrt(n_users[rows] * n_users[similarity.indices])
        similarity.data = similarity.data / (norms + settings.shrinkage)
        similarity.setdiag(0.0)
        similarity.eliminate_zeros()
        nearest = _keep_largest(similarity, settings.neighbours, train.tie_order)
        self.similarity = nearest.T.tocsr().astype(np.float32)  # column b: the neighbours of item b

    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        scores = weighted_history(users, seen, self.config) @ self.similarity
        return np.asarray(scores.toarray(), dtype=np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        matrix = self.similarity
        return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        n_items = len(self.item_ids)
        data = checked_array(arrays, "data", (None,), np.float32)
        indices = checked_array(arrays, "indices", data.shape, np.int32)
        indptr = checked_array(arrays, "indptr", (n_items + 1,), np.int32)
        self.similarity = sp.csr_matrix((data, indices, indptr), shape=(n_items, n_items))
        self.similarity.check_format(full_check=True)


def _keep_largest(matrix: sp.csr_matrix, k: int, tie_order: np.ndarray) -> sp.csr_matrix:
    """The k largest entries of each row; of equal ones, the columns of lowest `tie_order` (n_items,)."""
    rows = _row_indices(matrix)
    order = np.lexsort((tie_order[matrix.indices], -matrix.data, rows))  # largest first in each row
    rank = np.arange(len(order)) - matrix.indptr[rows[order]]  # in the row, from 0
    keep = order[rank < k]
    return sp.csr_matrix((matrix.data[keep], (rows[keep], matrix.indices[keep])), shape=matrix.shape)


def _row_indices(matrix: sp.csr_matrix) -> np.ndarray:
    """Row of each entry, int64 (nnz,)."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
