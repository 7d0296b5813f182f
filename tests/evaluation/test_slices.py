"""Slices of users by activity, of held-out events by popularity and by day; by hand and by brute force."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.evaluation.slices import (
    BY_ACTIVITY,
    BY_DAY,
    BY_POPULARITY,
    FEW_OF_ITEM,
    FEW_OF_USER,
    SECONDS_A_DAY,
    days_to_input,
    few_events_groups,
    quartile_groups,
)
from tests.support.scorers import fixed_scores
from tests.support.worlds import taste_dataset


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([4, 1, 3, 2], [[1], [2], [3], [4]]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [[1, 2], [3, 4], [5, 6], [7, 8]]),
        ([5, 5, 5, 9], [[5, 5, 5], [9]]),  # equal numbers stay together
        ([7, 7, 7], [[7, 7, 7]]),
        ([3], [[3]]),
        ([], []),
    ],
)
def test_quartile_groups_by_hand(numbers: list[int], expected: list[list[int]]) -> None:
    found = list(quartile_groups(np.array(numbers)))
    assert [sorted(np.array(numbers)[mask]) for _, _, mask in found] == expected
    assert [(lowest, highest) for lowest, highest, _ in found] == [(min(x), max(x)) for x in expected]


def test_slices_by_activity_average_the_users_of_a_group() -> None:
    dataset = taste_dataset()
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    result = measure(fixed_scores(dataset, scores), dataset)
    slices = [each for each in result.slices if each.by == BY_ACTIVITY]
    assert sum(each.n_users for each in slices) == len(result.users)
    n_input = np.array([len(dataset.train.interactions.history(user)) for user in result.users])
    for each in slices:
        inside = (n_input >= each.lowest) & (n_input <= each.highest)
        assert set(each.metrics) == set(result.per_user)
        assert each.n_users == inside.sum() > 0
        for name, value in each.metrics.items():
            assert value == pytest.approx(result.per_user[name][inside].mean())


def test_few_training_events_are_fewer_than_five_by_hand() -> None:
    """Ann and item a have five training events, bob and the other items fewer."""
    events = pl.DataFrame(
        {
            "user_id": ["ann"] * 6 + ["bob"] * 2 + ["cas", "dan", "eve", "fay"],
            "item_id": [*"abcdef", *"ba", *"aaaa"],
            "part": ["train"] * 5 + ["test"] + ["train", "test"] + ["train"] * 4,
        }
    )
    dataset = Dataset.from_frame(events)
    scores = np.zeros((dataset.n_users, dataset.n_items))
    scores[:, dataset.item_ids.index(["a"], "item")] = 1
    slices = measure(fixed_scores(dataset, scores), dataset, metrics=["mrr"]).slices
    found = {
        by: [(each.lowest, each.highest, each.n_users) for each in slices if each.by == by]
        for by in (FEW_OF_USER, FEW_OF_ITEM)
    }
    assert found == {FEW_OF_USER: [(1, 1, 1), (5, 5, 1)], FEW_OF_ITEM: [(0, 0, 1), (5, 5, 1)]}
    of_bob = next(each for each in slices if each.by == FEW_OF_USER)
    assert of_bob.metrics["mrr@10"] == 1.0, "a is the first item of bob's list, as b is known"
    assert list(few_events_groups(np.array([5, 9]))) == []
    assert [mask.tolist() for *_, mask in few_events_groups(np.array([4, 0]))] == [[True, True]]


def test_metrics_of_the_catalogue_have_no_slices() -> None:
    dataset = taste_dataset()
    scores = np.zeros((dataset.n_users, dataset.n_items))
    assert measure(fixed_scores(dataset, scores), dataset, metrics=["gini", "coverage"]).slices == ()


def test_slices_by_popularity_have_the_held_out_items_of_a_group_alone() -> None:
    """The value of a slice is that of the test events whose items are in it."""
    dataset = taste_dataset()
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    result = measure(fixed_scores(dataset, scores), dataset)
    slices = [each for each in result.slices if each.by == BY_POPULARITY]
    assert len(slices) > 1
    n_training = np.bincount(dataset.train.interactions.items, minlength=dataset.n_items)
    is_test, known = dataset.part == 2, dataset.only("train", "validation").interactions
    masked = scores.copy()
    masked[known.users, known.items] = -np.inf
    ranks = (masked[:, None, :] > masked[:, :, None]).sum(2)  # (n_users, n_items), no two scores are equal
    n_events = 0
    for each in slices:
        popularity = n_training[dataset.interactions.items]
        inside = is_test & (popularity >= each.lowest) & (popularity <= each.highest)
        users, items = dataset.interactions.users[inside], dataset.interactions.items[inside]
        best = [min(ranks[user, items[users == user]]) for user in np.unique(users)]
        assert each.n_users == len(best)
        assert each.metrics["mrr@10"] == pytest.approx(np.mean([1 / (r + 1) if r < 10 else 0 for r in best]))
        assert each.metrics["hit_rate@20"] == pytest.approx(np.mean([r < 20 for r in best]))
        assert "novelty@10" not in each.metrics
        n_events += len(users)
    assert n_events == is_test.sum()


def dataset_with_days() -> Dataset:
    """Forty users with twenty events on few days of a year, in random parts."""
    generator = np.random.default_rng(2)
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(40), 20),
            "item_id": np.concatenate([generator.permutation(60)[:20] for _ in range(40)]),
            "timestamp": generator.integers(0, 12, 800) * 30 * SECONDS_A_DAY
            + generator.integers(0, SECONDS_A_DAY, 800),
        }
    )
    return Dataset.from_frame(events, split="random")


def test_slices_by_day_by_hand() -> None:
    """Of two held-out events one has an input event on its day, the other three days before."""
    hours = {"a": 23, "b": 24, "c": 47, "d": 24 * 5 - 1}  # days 0, 1, 1 and 4
    events = pl.DataFrame(
        {
            "user_id": ["ann"] * 4,
            "item_id": list(hours),
            "timestamp": [hour * 3600 for hour in hours.values()],
            "part": ["train", "train", "test", "test"],
        }
    )
    dataset = Dataset.from_frame(events)
    days = days_to_input(dataset.task("test"), np.array([0]))
    assert days is not None
    assert days.tolist() == [0, 3]
    result = measure(fixed_scores(dataset, np.array([[4.0, 3.0, 2.0, 1.0]])), dataset)
    slices = [each for each in result.slices if each.by == BY_DAY]
    assert [(each.lowest, each.highest, each.n_users) for each in slices] == [(0, 0, 1), (3, 3, 1)]
    assert sorted(each.metrics["mrr@10"] for each in slices) == [0.5, 1.0]


def test_days_to_the_nearest_input_event_by_brute_force() -> None:
    dataset = dataset_with_days()
    task, users = dataset.task("test"), np.array([31, 4, 17])
    expected = []
    for user in users:
        given, held_out = (
            events.interactions.times[events.interactions.users == user] // SECONDS_A_DAY
            for events in (task.input, task.held_out)
        )
        expected += [int(np.abs(given - day).min()) for day in held_out]
    days = days_to_input(task, users)
    assert days is not None
    assert days.tolist() == expected
    assert 0 < np.count_nonzero(days) < len(days)


def test_slices_by_day_have_all_held_out_events() -> None:
    dataset = dataset_with_days()
    scores = np.random.default_rng(0).random((dataset.n_users, dataset.n_items))
    result = measure(fixed_scores(dataset, scores), dataset)
    same, other = (each for each in result.slices if each.by == BY_DAY)
    assert (same.lowest, same.highest) == (0, 0)
    assert 0 < other.lowest <= other.highest
    days = days_to_input(dataset.task("test"), result.users)
    assert days is not None
    n_test = np.diff(dataset.test.interactions.indptr)[result.users]
    users = np.repeat(result.users, n_test)
    assert same.n_users == len(set(users[days == 0].tolist()))
    assert other.n_users == len(set(users[days > 0].tolist()))


def test_events_without_a_time_are_of_no_day() -> None:
    """Of three held-out events one has no time, and one is of a user whose input has none."""
    day = SECONDS_A_DAY
    events = pl.DataFrame(
        {
            "user_id": ["ann", "ann", "ann", "ann", "bob", "bob"],
            "item_id": list("abcdab"),
            "timestamp": [None, 5 * day, None, 9 * day, None, day],
            "part": ["train", "train", "test", "test", "train", "test"],
        }
    )
    dataset = Dataset.from_frame(events)
    days = days_to_input(dataset.task("test"), dataset.user_ids.index(["ann", "bob"]))
    assert days is not None
    assert sorted(days.tolist()) == [-1, -1, 4]
    scores = np.zeros((dataset.n_users, dataset.n_items))
    slices = [each for each in measure(fixed_scores(dataset, scores), dataset).slices if each.by == BY_DAY]
    assert [(each.lowest, each.highest, each.n_users) for each in slices] == [(4, 4, 1)]


def test_events_without_times_have_no_slices_by_day() -> None:
    dataset = taste_dataset()
    untimed = replace(dataset, interactions=replace(dataset.interactions, times=None))
    scores = np.zeros((dataset.n_users, dataset.n_items))
    kinds = {each.by for each in measure(fixed_scores(untimed, scores), untimed).slices}
    assert kinds == {BY_ACTIVITY, BY_POPULARITY, FEW_OF_USER, FEW_OF_ITEM}
