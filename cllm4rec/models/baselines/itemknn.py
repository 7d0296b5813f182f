"""ItemKNN: items like those in the history, by shrunken cosine similarity."""

import numpy as np
import scipy.sparse as sp

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.config import ItemKNNConfig
from cllm4rec.models.description import checked_array
from cllm4rec.models.one_stage import DECAYS, OneStageRecommender, weighted_history


class ItemKNN(OneStageRecommender):
    """Item-based nearest neighbours (Deshpande and Karypis, "Item-based top-N recommendation algorithms", 2004).

    similarity(a, b) = |users of both| / (sqrt(|users of a| |users of b|) + shrinkage); each item keeps its most similar
    ones; the score of an item is the sum of its similarities to the history.
    """

    name = "itemknn"
    config_class = ItemKNNConfig
    config: ItemKNNConfig
    at_scoring = DECAYS
    grid = tuple(
        {"neighbours": neighbours, "shrinkage": shrinkage}
        for neighbours in (50, 100, 200, 500)
        for shrinkage in (0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
    )

    def _fit(self, train: Dataset, settings: ItemKNNConfig) -> None:
        assert settings.neighbours is not None and settings.shrinkage is not None
        matrix = train.interactions.matrix
        together = (matrix.T @ matrix).tocsr()  # (n_items, n_items) counts of users
        counts = together.diagonal()
        rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
        together.data = together.data / (
            np.sqrt(counts[rows] * counts[together.indices]) + settings.shrinkage
        )
        together.setdiag(0.0)
        together.eliminate_zeros()
        self.similarity = (
            _keep_largest(together, settings.neighbours, train.tie_order).T.tocsr().astype(np.float32)
        )

    def _score(self, users: np.ndarray, known: np.ndarray, seen: Dataset) -> np.ndarray:
        return np.asarray(
            (weighted_history(users, seen, self.config) @ self.similarity).toarray(), dtype=np.float32
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        matrix = self.similarity
        return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        n = len(self.item_ids)
        data = checked_array(arrays, "data", (None,), np.float32)
        indices, indptr = (
            checked_array(arrays, "indices", data.shape, np.int32),
            checked_array(arrays, "indptr", (n + 1,), np.int32),
        )
        self.similarity = sp.csr_matrix((data, indices, indptr), shape=(n, n))
        self.similarity.check_format(full_check=True)


def _keep_largest(matrix: sp.csr_matrix, k: int, tie_order: np.ndarray) -> sp.csr_matrix:
    """The k largest entries of each row; among equal ones the column of lower `tie_order` (n_items,) is kept."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((tie_order[matrix.indices], -matrix.data, rows))
    place = np.arange(len(order)) - matrix.indptr[rows[order]]
    keep = order[place < k]
    return sp.csr_matrix((matrix.data[keep], (rows[keep], matrix.indices[keep])), shape=matrix.shape)
