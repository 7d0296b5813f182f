"""Synthetic datasets: equal for equal seeds, and a control without taste."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.synthetic import checkerboard, shuffled_items, taste_world


def test_worlds_are_determined_by_their_seed() -> None:
    first, same, other_seed = (taste_world(seed, n_users=20, n_items=30, n_events=8) for seed in (1, 1, 2))
    assert first.events.equals(same.events) and first.items.equals(same.items)
    assert not first.events.equals(other_seed.events)
    assert np.exp(first.preference).sum(1) == pytest.approx(np.ones(20))
    assert first.events.unique(["user_id", "item_id"]).height == first.events.height


def share_of_matches(events: pl.DataFrame) -> float:
    """Share of events whose user and item are both even or both odd."""
    pairs = events.select("user_id", "item_id").rows()
    return sum(int(user[1:]) % 2 == int(item[1:]) % 2 for user, item in pairs) / len(pairs)


def test_the_control_world_keeps_users_and_loses_their_taste() -> None:
    events = checkerboard(20, 30)
    assert share_of_matches(events) == 1
    control = shuffled_items(events)
    assert set(control["user_id"]) == set(events["user_id"])
    assert control.unique(["user_id", "item_id"]).height == control.height
    assert share_of_matches(control) == pytest.approx(0.5, abs=0.1)
