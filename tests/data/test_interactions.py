"""Events as arrays: histories, the binary matrix, numbers in range."""

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from tests.support.datasets import random_events


def test_histories_of_several_users_equal_those_of_each() -> None:
    dataset = Dataset.from_frame(random_events(1), split="random").train
    users = np.array([4, 0, 4, 29, 7])
    histories = dataset.interactions.histories(users)
    pieces = np.split(histories.values, np.cumsum(histories.lengths)[:-1])
    for user, items in zip(users.tolist(), pieces, strict=True):
        np.testing.assert_array_equal(items, dataset.interactions.history(user))
    times = dataset.interactions.times
    assert times is not None
    for user in range(dataset.n_users):
        assert (np.diff(times[dataset.interactions.users == user]) >= 0).all()


def test_the_matrix_is_binary_and_has_rows_for_users_without_events() -> None:
    events = Interactions(np.array([0, 0, 2]), np.array([1, 1, 3]), n_users=4, n_items=5)
    expected = np.zeros((4, 5), dtype=np.float32)
    expected[0, 1] = expected[2, 3] = 1
    np.testing.assert_array_equal(events.matrix.toarray(), expected)


def test_numbers_out_of_range_and_unsorted_users_are_refused() -> None:
    with pytest.raises(ValueError, match="item number 5 is out of range: there are 5 items"):
        Interactions(np.array([0]), np.array([5]), 1, 5)
    with pytest.raises(ValueError, match="user number -1 is out of range"):
        Interactions(np.array([-1]), np.array([0]), 1, 5)
    with pytest.raises(ValueError, match="not sorted by user"):
        Interactions(np.array([1, 0]), np.array([0, 0]), 2, 5)
