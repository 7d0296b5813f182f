"""Bootstrap intervals against known means, the normal interval and scipy, and paired differences."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from cllm4rec.evaluation import (
    Conditions,
    Difference,
    Measurement,
    bootstrap_interval,
    differences,
    measure,
    measure_choices,
)
from cllm4rec.evaluation.intervals import bootstrap_intervals
from cllm4rec.models.baselines.popularity import Popularity
from tests.support.worlds import taste_dataset

CONDITIONS = Conditions("test", "1234", "5678", "full ranking")


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


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan], [0.5, -math.inf], [[0.5, 0.5]], 0.5])
def test_values_without_an_interval_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more finite values"):
        bootstrap_interval(values)


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
    metrics["coverage@5"] = sum(metrics.values())
    return Measurement(CONDITIONS, metrics, arrays, np.array([3, 8]), 0, 1.0)


def test_differences_are_paired_by_user() -> None:
    """User 3 gains 0.5 and user 8 gains 0.25; a resample of two users has 0.25, 0.375 or 0.5."""
    found = differences(measurement(ndcg=[0.75, 0.5]), measurement(ndcg=[0.25, 0.25]))
    assert found == {"ndcg": Difference(0.375, (0.25, 0.5)), "coverage@5": Difference(0.375, None)}


def test_differences_of_other_users_or_metrics_are_refused() -> None:
    result = measurement(ndcg=[0.75, 0.5])
    with pytest.raises(ValueError, match="differ in users: measure both"):
        differences(result, replace(result, users=np.array([3, 9])))
    with pytest.raises(ValueError, match="differ in metrics: measure both"):
        differences(result, measurement(recall=[0.75, 0.5]))


def test_differences_of_other_held_out_events_or_splits_are_refused() -> None:
    """Of the same users, by the same metrics."""
    dataset, other_split = taste_dataset(), taste_dataset(split="leave-last-out")
    model = Popularity().fit(dataset)
    users = np.intersect1d(measure(model, dataset).users, measure(model, dataset, "validation").users)
    result, in_validation, in_other_split = (
        measure(Popularity().fit(measured), measured, part, users=users)
        for measured, part in ((dataset, "test"), (dataset, "validation"), (other_split, "test"))
    )
    assert differences(result, result)["ndcg@10"] == Difference(0.0, (0.0, 0.0))
    with pytest.raises(ValueError, match="differ in part: measure both"):
        differences(result, in_validation)
    with pytest.raises(ValueError, match="differ in split_sha256: measure both"):
        differences(result, in_other_split)
    untitled = replace(dataset, items=dataset.items.with_columns(title=pl.lit("")))
    with pytest.raises(ValueError, match="differ in data_sha256: measure both"):
        differences(result, measure(model, untitled, users=users))


def test_differences_of_other_candidates_are_refused() -> None:
    dataset = taste_dataset()
    model = Popularity().fit(dataset)
    result = measure_choices(model, dataset, candidates=8, draws=2, seed=1)
    assert differences(result, result)["hit_ratio@1"] == Difference(0.0, (0.0, 0.0))
    for changed in ({"candidates": 9}, {"draws": 3}, {"seed": 2}):
        settings = {"candidates": 8, "draws": 2, "seed": 1} | changed
        with pytest.raises(ValueError, match="differ in protocol: measure both"):
            differences(result, measure_choices(model, dataset, **settings))


def test_one_user_has_no_interval() -> None:
    assert Measurement(CONDITIONS, {"a": 1.0}, {"a": np.ones(1)}, np.array([4]), 0, 1.0).intervals == {}
