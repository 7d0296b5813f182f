"""A small dataset and a short configuration for tests that train CLLM4Rec."""

from cllm4rec.data.dataset import Dataset
from cllm4rec.training.config import TrainConfig
from tests.support.worlds import taste_dataset

QUICK = TrainConfig(epochs=4, batch_size=16, warmup_steps=2)


def small_dataset() -> Dataset:
    """41 users (not a multiple of the batch size), 30 items with texts, and reviews."""
    return taste_dataset(0, 41, 30, 10)
