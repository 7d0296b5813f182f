"""Bootstrap intervals against known means, the normal interval and scipy, and paired differences."""

import math

import numpy as np
import pytest
from scipy import stats

from cllm4rec.evaluation import Difference, Measurement, bootstrap_interval, differences
from cllm4rec.evaluation.intervals import bootstrap_intervals


def test_the_bootstrap_interval_covers_a_known_mean_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.exponential(2.0, 80), seed=trial, draws=200)
        covered += low <= 2.0 <= high
    assert 175 <= covered <= 199  # expected about 186, standard deviation about 4


def test_the_bootstrap_interval_is_as_wide_as_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 2000)
    low, high = bootstrap_interval(values)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.001)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(len(values)), rel=0.1)


def test_the_bootstrap_interval_is_determined_by_its_seed() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, 100)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values.tolist(), seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_the_bootstrap_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval([0.25] * 10) == (0.25, 0.25)


def test_intervals_of_several_metrics_are_those_of_each_alone_and_of_scipy() -> None:
    """All metrics share the resamples of the users."""
    generator = np.random.default_rng(2)
    values = {"a": generator.random(300), "b": (generator.random(300) < 0.2).astype(float), "c": np.ones(300)}
    together = bootstrap_intervals(values, seed=7)
    for name, column in values.items():
        assert together[name] == pytest.approx(bootstrap_interval(column, seed=7), abs=1e-12)
        expected = stats.bootstrap(
            (column,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(7)
        ).confidence_interval
        assert together[name] == pytest.approx((expected.low, expected.high), abs=1e-12)


def measurement(**per_user: list[float]) -> Measurement:
    """Metrics of two users and a coverage."""
    arrays = {name: np.array(values) for name, values in per_user.items()}
    metrics = {name: float(values.mean()) for name, values in arrays.items()}
    return Measurement(metrics | {"coverage@5": sum(metrics.values())}, arrays, np.array([3, 8]), 0, 1.0)


def test_differences_are_paired_by_user() -> None:
    """User 3 gains 0.5 and user 8 gains 0.25; a resample of two users has 0.25, 0.375 or 0.5."""
    found = differences(measurement(ndcg=[0.75, 0.5]), measurement(ndcg=[0.25, 0.25]))
    assert found == {"ndcg": Difference(0.375, (0.25, 0.5)), "coverage@5": Difference(0.375, None)}


def test_differences_of_other_users_are_refused() -> None:
    result = measurement(ndcg=[0.75, 0.5])
    other = Measurement(result.metrics, result.per_user, np.array([3, 9]), 0, 1.0)
    with pytest.raises(ValueError, match="other users or metrics"):
        differences(result, other)


def test_one_user_has_no_interval() -> None:
    assert Measurement({"a": 1.0}, {"a": np.ones(1)}, np.array([4]), 0, 1.0).intervals == {}
