"""Events that a system may see when held-out events are predicted."""

import pytest

from cllm4rec.data.build import build_dataset
from cllm4rec.data.splits import input_events
from cllm4rec.data.synthetic import taste_world


@pytest.mark.parametrize(("split", "newest"), [("leave-last-out", True), ("time", True), ("random", False)])
def test_in_splits_by_time_validation_events_are_input_at_test(split: str, newest: bool) -> None:
    world = taste_world(2, n_users=60, n_items=50, n_events=10)
    dataset = build_dataset(world.events, world.items, split=split)
    n = dataset.about["n_events_by_part"] if "n_events_by_part" in dataset.about else None
    assert n is None or n["test"]
    assert len(input_events(dataset, "validation").interactions) == len(dataset.train.interactions)
    expected = dataset.only("train", "validation") if newest else dataset.train
    assert input_events(dataset, "test").fingerprint == expected.fingerprint
