"""Synthetic datasets: equal for equal seeds, and a control without taste."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.synthetic import GENRES, checkerboard, shuffled_items, taste_world


def test_worlds_are_determined_by_their_seed() -> None:
    first, same, other_seed = (taste_world(seed, n_users=20, n_items=30, n_events=8) for seed in (1, 1, 2))
    assert first.events.equals(same.events) and first.items.equals(same.items)
    assert not first.events.equals(other_seed.events)
    assert np.exp(first.preference).sum(1) == pytest.approx(np.ones(20))
    assert first.events.unique(["user_id", "item_id"]).height == first.events.height


def test_rare_books_have_few_events_and_the_oracle_knows_them() -> None:
    """Counts of events follow the probabilities of the generator, for rare books as for others."""
    world = taste_world(0, n_items=200, n_rare=100)
    counts = dict(world.events["item_id"].value_counts().iter_rows())
    numbers = np.array([counts.get(item, 0) for item in world.item_ids])
    assert np.median(numbers[:100]) < np.median(numbers[100:]) / 4
    per_user = dict(world.events["user_id"].value_counts().iter_rows())
    probabilities = np.exp(world.preference)
    assert probabilities.sum(1) == pytest.approx(np.ones(500))
    expected = np.array([per_user[user] for user in world.user_ids]) @ probabilities  # with replacement
    assert np.corrcoef(expected[:100], numbers[:100])[0, 1] > 0.8


def test_the_title_of_a_rare_book_tells_its_genre() -> None:
    world = taste_world(0, n_items=200, n_rare=100)
    rows = {row["item_id"]: row for row in world.items.to_dicts()}
    for item in world.item_ids[:100]:
        genre = rows[item]["categories"].split(", ")[0]
        assert set(rows[item]["title"].split()) & set(GENRES[genre].split())


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
