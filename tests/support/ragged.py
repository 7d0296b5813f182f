"""Lists of numbers of any length."""

import numpy as np


def random_lists(seed: int, n: int = 30, longest: int = 7) -> list[np.ndarray]:
    """`n` lists of 0 to `longest` numbers."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 100, int(generator.integers(0, longest + 1))) for _ in range(n)]
