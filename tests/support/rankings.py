"""Rankings by plain sorting."""

import numpy as np


def final_ranking(scores: np.ndarray, masked: list[int], tie_order: np.ndarray) -> list[int]:
    """All items that are not masked, best first, by Python's sort."""
    return sorted(
        (item for item in range(len(scores)) if item not in masked), key=lambda i: (-scores[i], tie_order[i])
    )
