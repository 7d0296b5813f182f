"""The dataset of the tests with several processes."""

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world


@pytest.fixture(scope="session")
def uneven_dataset() -> Dataset:
    """41 users, one more than five batches of 8, with 1 to 24 training events each."""
    world = taste_world(0, n_users=41, n_items=90, n_events=15)
    limits = {user: number for number, user in enumerate(sorted(world.user_ids)[:6], start=1)}
    position = pl.int_range(pl.len()).over("user_id")
    events = world.events.filter(position < pl.col("user_id").replace_strict(limits, default=1000))
    return Dataset.from_frame(events, world.items, split="random")
