"""EASE with a prior of text: the weights that predict an item's vector from the vectors of other items.

L3AE: Moon, Park and Lee, "LLM-Enhanced Linear Autoencoders for Recommendation", 2025 (arXiv 2508.13500).
Here its two penalties are a sum, lambda, and the share of it that belongs to the prior.
"""

import numpy as np
import scipy.linalg

from cllm4rec.data.audit import learns_from
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.item_inverse import blocks_of_rows, empty_item_matrix, item_inverse
from cllm4rec.models.readings.item_texts import CONSTANT, ItemVectors


class TextPrior:
    """Weights of EASE with a prior, for several settings on the same events and vectors.

    With X the events, B minimises |X - XB|^2 + (1 - share) lambda |B|^2 + share lambda |B - C|^2 under a zero
    diagonal. Column j of C predicts the vector f_j from the vectors of the other items: it minimises
    |f_j - F c|^2 + prior_regularization |c|^2 with c_j = 0. So share 0 is EASE, whatever the vectors are.

    The inverse of an item matrix is kept for the next settings with the same lambda. C is never formed: it is
    a product of rank d, the width of the vectors, plus a diagonal.

    Memory: two arrays of n_items^2 numbers, the inverse in float64 (beyond MOST_IN_DOUBLE items in float32)
    and the weights in float32. Before each inverse also the item matrix as a sparse one.

    Attributes:
        vectors: (n_items, d), centred over the items with training events, of length 1; zero for an item
            without a vector.
    """

    def __init__(self, vectors: ItemVectors, train: Dataset) -> None:
        learns_from("the prior of texts", train.interactions)
        n_items = train.n_items
        self.events = train.interactions.matrix
        self.in_training = train.interactions.item_has_event  # bool (n_items,)
        self.regularization: float | None = None  # of `inverse`
        self.inverse = empty_item_matrix(n_items)
        self.vectors: np.ndarray = _unit(vectors, self.in_training).astype(self.inverse.dtype)
        self.projected = np.empty_like(self.vectors)  # inverse @ vectors
        self.out = np.empty((n_items, n_items), dtype=np.float32)

    def weights(self, regularization: float, prior_regularization: float, share: float) -> np.ndarray:
        """B, float32 (n_items, n_items). The next call overwrites it.

        Args:
            regularization: lambda.
            prior_regularization, share: of the prior.
        """
        self._invert(regularization)
        scaled, own = self._prior(prior_regularization)
        strength, diagonal = share * regularization, np.diag(self.inverse)
        # share lambda diag(P C), with P the inverse
        drawn = strength * (np.einsum("jd,dj->j", self.projected, scaled) + diagonal * own)
        factors = 1 + drawn - strength * own * diagonal
        for rows in blocks_of_rows(len(self.out)):
            block = -self.inverse[rows] / diagonal
            block *= factors
            if strength:
                block += strength * (self.projected[rows] @ scaled)
            self.out[rows] = block
        np.fill_diagonal(self.out, 0.0)
        return self.out

    def _invert(self, regularization: float) -> None:
        """Compute (X^T X + lambda I)^-1, in place of the item matrix."""
        if regularization == self.regularization:
            return
        self.regularization = None
        self.inverse = item_inverse(self.events, regularization, self.inverse)
        self.projected = self.inverse @ self.vectors
        self.regularization = regularization

    def _prior(self, regularization: float) -> tuple[np.ndarray, np.ndarray]:
        """The prior C = vectors @ scaled + diag(own).

        With P = (F F^T + regularization I)^-1 over items, C = -P / diag(P) by columns, and 0 on the diagonal.
        By Woodbury's identity P needs the inverse of a d x d matrix alone. Items without training events take
        no part in that inverse: their texts change no weight between other items.

        Returns:
            scaled: (d, n_items).
            own: (n_items,).
        """
        fitted: np.ndarray = self.vectors[self.in_training]
        width = fitted.shape[1]
        inner = fitted.T @ fitted
        inner[np.diag_indices(width)] += regularization
        scaled: np.ndarray = scipy.linalg.solve(inner, self.vectors.T, assume_a="pos")  # (d, n_items)
        leverage = np.einsum("jd,dj->j", self.vectors, scaled)
        rest = np.where(self.in_training, 1 - leverage, 1.0)  # an item predicts itself where it was fitted
        return scaled / rest, -leverage / rest


def _unit(vectors: ItemVectors, in_training: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float64 (n_items, d), centred over the items with training events.

    Raises:
        ValueError: none of these has a vector, or all have the same.
    """
    chosen = in_training & vectors.present
    if not chosen.any():
        raise ValueError("no item with a training event has a vector: give vectors of these items")
    centred = vectors.values.astype(np.float64)
    centred -= centred[chosen].mean(0)
    if np.abs(centred[chosen]).max() <= CONSTANT * np.abs(vectors.values[chosen]).max():
        raise ValueError("the vectors of all items with training events are equal: give others, or none")
    centred[~vectors.present] = 0.0
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(lengths > 0, lengths, 1.0)
