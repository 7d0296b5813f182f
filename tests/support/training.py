"""A small dataset and a short configuration for tests that train CLLM4Rec."""

from functools import cache

from cllm4rec.data.build import build_dataset
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.training.config import TrainConfig

QUICK = TrainConfig(epochs=4, batch_size=16, warmup_steps=2)


@cache
def small_dataset() -> Dataset:
    """41 users (not a multiple of the batch size), 30 items with texts, and reviews."""
    world = taste_world(0, n_users=41, n_items=30, n_events=10)
    return build_dataset(world.events, world.items)
