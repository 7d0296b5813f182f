"""Every system masters data with a known answer and is at chance in shuffled data."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import checkerboard, shuffled_items, taste_world
from cllm4rec.evaluation import measure
from cllm4rec.metrics import OF_CATALOGUE
from cllm4rec.models import SYSTEMS
from cllm4rec.models.base import Recommender
from cllm4rec.training.config import TrainConfig
from tests.support.scorers import fixed_scores
from tests.support.systems import fit, new_system
from tests.support.worlds import taste_dataset


@pytest.mark.parametrize("name", SYSTEMS)  # its items have no texts
def test_checkerboard_is_mastered(name: str, tmp_path: Path) -> None:
    """Each user took 40 of the 50 items of one parity; the other ten, five in test events, come first."""
    in_no_order = checkerboard(60, 100).drop("timestamp")  # there is no next item
    dataset = Dataset.from_frame(in_no_order, split="random")
    randomly_initialised = name in (
        "sasrec",
        "gru4rec",
        "bsarec",
        "multvae",
        "recvae",
        "bag",
        "alpharec",
        "rsllm",
    )  # they have more to learn
    config = TrainConfig(epochs=40 if randomly_initialised else 4, batch_size=8, warmup_steps=5, patience=15)
    if name == "bsarec":  # each prefix of a history is an example
        config = replace(config, epochs=10, batch_size=64)
    untitled: dict[str, object] = {"prompt": "ids"} if name == "rsllm" else {}
    if name == "alpharec":  # its vectors tell items apart, and nothing else
        untitled = {"item_vectors": str(tmp_path / "one-hot.npy")}
        np.save(tmp_path / "one-hot.npy", np.eye(dataset.n_items))
    model = fit(new_system(name, **untitled), dataset, config)
    measured = measure(model, dataset)
    users = np.arange(dataset.n_users)
    best = model.rank(users, dataset.train, k=10).items
    item_parity, user_parity = (
        np.array([int(text[1:]) % 2 for text in ids]) for ids in (dataset.item_ids.ids, dataset.user_ids.ids)
    )
    same = float((item_parity[best] == user_parity[:, None]).mean())
    if name == "popularity":
        assert measured.metrics["recall@20"] < 0.6
        assert same < 0.7
    else:
        assert measured.metrics["recall@20"] > 0.98
        assert same > 0.98


@cache
def shuffled_dataset() -> tuple[Dataset, float]:
    """Data in which nothing can be learned, and its NDCG@100 of chance: the mean of 50 random scorers."""
    world = taste_world(3, n_users=250, n_items=150, n_events=12)
    dataset = Dataset.from_frame(shuffled_items(world.events), world.items, split="random")
    values = []
    for seed in range(50):
        scores = np.random.default_rng(seed).random((dataset.n_users, dataset.n_items))
        values.append(measure(fixed_scores(dataset, scores), dataset).metrics["ndcg@100"])
    return dataset, float(np.mean(values))


def test_shuffled_labels_leave_a_system_at_chance(name: str) -> None:
    """The mean over about 250 users is within four standard errors of that of random scorers."""
    dataset, chance = shuffled_dataset()
    model = fit(new_system(name), dataset)
    values = measure(model, dataset).per_user["ndcg@100"]
    assert abs(values.mean() - chance) < 4 * values.std(ddof=1) / np.sqrt(len(values))


def test_measured_metrics_are_the_means_of_their_users(model: Recommender) -> None:
    dataset = taste_dataset()
    measured = measure(model, dataset)
    of_catalogue = {name for name in measured.metrics if name.partition("@")[0] in OF_CATALOGUE}
    assert set(measured.per_user) == set(measured.metrics) - of_catalogue
    for metric, values in measured.per_user.items():
        assert measured.metrics[metric] == pytest.approx(values.mean())
        if not metric.startswith("novelty"):
            assert values.min() >= 0 and values.max() <= 1
    assert all(0 <= measured.metrics[name] <= 1 for name in of_catalogue)
