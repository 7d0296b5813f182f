"""Randomness as a function: the same (seed, epoch, example, ...) gives the same numbers everywhere.

Nothing here has a state. A shuffled history depends neither on the batch, the worker or the process that
draws it, nor on earlier draws. Hashes of external ids do not depend on the numbering of users and items.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise ValueError if a seed is negative or has more than 63 bits."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"{name} is {seed}: it may be 0 to {2**63 - 1}")


def _scramble(x: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit integers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix(*keys: int | np.ndarray) -> np.ndarray:
    """Hash whole numbers together, element by element.

    Args:
        keys: integers and integer arrays that broadcast against each other; their order matters.

    Returns:
        uint64 array of the broadcast shape, uniform over 64 bits.
    """
    state = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            number = np.asarray(key).astype(np.int64).astype(np.uint64)
            state = _scramble((state ^ number) + _GOLDEN)
    return state


def uniform(*keys: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) from `mix(*keys)`, float64 of the broadcast shape."""
    return (mix(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(n: int, *keys: int) -> np.ndarray:
    """The numbers 0 .. n-1 in an order that depends on `keys` alone, int64 (n,)."""
    return np.argsort(mix(*keys, np.arange(n)), kind="stable")
