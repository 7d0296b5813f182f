"""Synthetic datasets."""

import numpy as np
import pytest

from cllm4rec.data.synthetic import checkerboard, shuffled_items, taste_world


def test_worlds_are_determined_by_their_seed() -> None:
    one, same, other = (taste_world(seed, n_users=20, n_items=30, n_events=8) for seed in (1, 1, 2))
    assert one.events.equals(same.events) and one.items.equals(same.items)
    assert not one.events.equals(other.events)
    assert np.exp(one.preference).sum(1) == pytest.approx(np.ones(20))
    assert one.events.unique(["user_id", "item_id"]).height == one.events.height


def test_the_control_world_keeps_users_and_loses_their_taste() -> None:
    events = checkerboard(20, 30)
    assert all(
        int(user[1:]) % 2 == int(item[1:]) % 2 for user, item in events.select("user_id", "item_id").rows()
    )
    control = shuffled_items(events)
    assert set(control["user_id"]) == set(events["user_id"])
    assert control.unique(["user_id", "item_id"]).height == control.height
    matching = sum(
        int(user[1:]) % 2 == int(item[1:]) % 2 for user, item in control.select("user_id", "item_id").rows()
    )
    assert matching / control.height == pytest.approx(0.5, abs=0.1)
