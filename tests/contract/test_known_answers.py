"""Every system masters a certain world and is at chance in a shuffled one."""

from functools import cache

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import checkerboard, shuffled_items, taste_world
from cllm4rec.evaluation import PER_USER, measure
from cllm4rec.models.base import Recommender
from cllm4rec.training.config import TrainConfig
from tests.support.systems import fit, new_system
from tests.support.worlds import taste_dataset


def test_checkerboard_is_mastered(name: str) -> None:
    """Each user took 40 of the 50 items of one parity: the other ten, five of which are test events, come first."""
    dataset = build_dataset(checkerboard(60, 100).drop("timestamp"))  # in no order: there is no next item
    epochs = (
        40 if name in ("sasrec", "gru4rec", "rsllm") else 4
    )  # those that start at random have more to learn
    untitled = {"prompt": "ids"} if name == "rsllm" else {}
    model = fit(
        new_system(name, **untitled), dataset, TrainConfig(epochs=epochs, batch_size=8, warmup_steps=5)
    )
    measured = measure(model, dataset.train, dataset.test)
    users = np.arange(dataset.n_users)
    best = model.recommend(users, dataset.train, k=10).items
    parity = np.array([int(one[1:]) % 2 for one in dataset.item_ids.ids])
    own = np.array([int(one[1:]) % 2 for one in dataset.user_ids.ids])
    same = float((parity[best] == own[:, None]).mean())
    if name == "popularity":
        assert measured.metrics["recall@20"] < 0.6
        assert same < 0.7
    else:
        assert measured.metrics["recall@20"] > 0.98
        assert same > 0.98


class RandomScorer:
    """Scores without any knowledge."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        return self.generator.random((len(users), seen.n_items), dtype=np.float32)


@cache
def shuffled_world() -> tuple[Dataset, float]:
    """A world where nothing can be learned, and the NDCG@100 of chance in it, averaged over 50 random scorers."""
    world = taste_world(3, n_users=250, n_items=150, n_events=12)
    dataset = build_dataset(shuffled_items(world.events), world.items)
    masked = dataset.only("train", "validation")
    values = [
        measure(RandomScorer(seed), dataset.train, dataset.test, masked).metrics["ndcg@100"]
        for seed in range(50)
    ]
    return dataset, float(np.mean(values))


def test_shuffled_labels_leave_a_system_at_chance(name: str) -> None:
    """Within four standard errors of the mean over users (about 250 of them) of what random scorers reach."""
    dataset, chance = shuffled_world()
    model = fit(new_system(name), dataset)
    values = measure(model, dataset.train, dataset.test, dataset.only("train", "validation")).per_user[
        "ndcg@100"
    ]
    assert abs(values.mean() - chance) < 4 * values.std(ddof=1) / np.sqrt(len(values))


def test_measured_metrics_are_the_means_of_their_users(model: Recommender) -> None:
    dataset = taste_dataset()
    measured = measure(model, dataset.train, dataset.test, dataset.only("train", "validation"))
    assert set(measured.per_user) == set(PER_USER)
    for metric, values in measured.per_user.items():
        assert measured.metrics[metric] == pytest.approx(values.mean())
    assert all(0 <= value <= 1 for value in measured.metrics.values())
