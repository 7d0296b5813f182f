"""The demonstration: its quality bar, its rare books, and the folders that it may write."""

from pathlib import Path

import numpy as np
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import TasteWorld
from cllm4rec.evaluation import measure
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from experiments.demo import FEW, bookshop, with_rare_test_items
from experiments.oracle import Oracle


def world_and_dataset(seed: int) -> tuple[TasteWorld, Dataset]:
    world = bookshop(seed)
    return world, Dataset.from_frame(world.events, world.items, split="random", seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cllm4rec_with_its_defaults_reaches_seven_tenths_of_the_oracle(seed: int) -> None:
    world, dataset = world_and_dataset(seed)
    model = CLLM4Rec().fit(dataset)
    reached, best = (
        measure(scorer, dataset).metrics["ndcg@100"] for scorer in (model, Oracle(world, dataset))
    )
    assert reached >= 0.7 * best


def test_the_rare_test_events_are_those_of_books_with_few_training_events() -> None:
    _, dataset = world_and_dataset(0)
    rare = with_rare_test_items(dataset)
    assert rare.train.interactions.items.tolist() == dataset.train.interactions.items.tolist()
    assert rare.validation.interactions.items.tolist() == dataset.validation.interactions.items.tolist()
    trained = dataset.train.interactions.items.tolist()
    test = zip(dataset.test.interactions.users, dataset.test.interactions.items, strict=True)
    expected = [(user, item) for user, item in test if trained.count(item) <= FEW]
    found = rare.test.interactions
    assert list(zip(found.users, found.items, strict=True)) == expected
    assert len(expected) >= 100


def test_texts_are_worth_most_where_books_have_few_events() -> None:
    """EASE with a prior of text is above EASE, by the larger factor for rare books."""
    _, dataset = world_and_dataset(0)
    rare = with_rare_test_items(dataset)
    plain, reading = (EASE(EASEConfig(text_prior=reads)).fit(dataset) for reads in (False, True))
    ratio, rare_ratio = (
        np.divide(*(measure(model, events).metrics["ndcg@100"] for model in (reading, plain)))
        for events in (dataset, rare)
    )
    assert rare_ratio > 1.5 > ratio > 1


def test_the_demonstration_leaves_the_folders_of_others_alone(tmp_path: Path) -> None:
    from experiments.demo import main

    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(SystemExit, match="did not write"):
        main(0, tmp_path, "tiny")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"
