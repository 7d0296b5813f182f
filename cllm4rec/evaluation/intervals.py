"""Bootstrap intervals of means over users, and of paired differences of two systems."""

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLED_AT_ONCE = 1 << 17  # users drawn at once: 1 MiB in int64
INTERVAL_SEED = 0


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int = INTERVAL_SEED, draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over users (`scipy.stats.bootstrap`).

    Args:
        values: (n,), at least two, finite; to compare two systems, their paired differences.
        seed: of the resampling, by numpy's `default_rng`: equal seeds give equal intervals.
        draws: number of resamples.

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or len(column) < 2 or not np.isfinite(column).all():
        raise ValueError("an interval is of two or more finite values: leave others out")
    return bootstrap_intervals({"": column}, seed, draws)[""]


def bootstrap_intervals(
    values: Mapping[str, np.ndarray], seed: int = INTERVAL_SEED, draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """As `bootstrap_interval`, of several metrics (n,) of the same users, who are resampled once for all."""
    from scipy import stats  # takes half a second, and training does not need it

    columns = np.stack(list(values.values()), axis=1)  # (n, n_metrics)
    n_users = len(columns)

    def means(resamples: np.ndarray, axis: int = -1) -> np.ndarray:
        """Means (n_metrics, R) over resampled users (R, n)."""
        times = [np.bincount(users, minlength=n_users) for users in np.atleast_2d(resamples)]
        return np.asarray(columns.T @ np.stack(times, axis=1).astype(np.float64) / n_users)

    result = stats.bootstrap(
        (np.arange(n_users),),
        means,
        n_resamples=draws,
        batch=max(1, RESAMPLED_AT_ONCE // n_users),
        vectorized=True,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    bounds = np.stack(result.confidence_interval, axis=1).tolist()  # (n_metrics, 2)
    return {name: (low, high) for name, (low, high) in zip(values, bounds, strict=True)}
