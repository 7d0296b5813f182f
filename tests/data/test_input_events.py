"""Events that a system may read when held-out events are predicted."""

import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from tests.support.datasets import event_frame


@pytest.mark.parametrize(("split", "newest"), [("leave-last-out", True), ("time", True), ("random", False)])
def test_in_splits_by_time_validation_events_are_input_at_test(split: str, newest: bool) -> None:
    world = taste_world(2, n_users=60, n_items=50, n_events=10)
    dataset = Dataset.from_frame(world.events, world.items, split=split)
    assert len(dataset.test.interactions)
    assert len(dataset.task("validation").input.interactions) == len(dataset.train.interactions)
    expected = dataset.only("train", "validation") if newest else dataset.train
    assert dataset.task("test").input.fingerprint == expected.fingerprint


def test_an_unknown_split_is_not_silently_taken_for_one_without_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [("ann", "x", "train"), ("ann", "y", "validation"), ("ann", "z", "test")]
    dataset = Dataset.from_frame(event_frame(rows, "part"))
    without_validation = Dataset.from_frame(event_frame([rows[0], rows[2]], "part"))
    assert dataset.task("validation").input.fingerprint == dataset.train.fingerprint
    assert without_validation.task("test").input.fingerprint == without_validation.train.fingerprint
    assert not caplog.records
    assert dataset.task("test").input.fingerprint == dataset.train.fingerprint
    assert "does not say how it was split: validation events are no input at test" in caplog.text


def test_parts_of_a_table_are_not_in_time() -> None:
    rows = [("ann", "x", "t"), ("ann", "y", "v"), ("ann", "z", "e")]
    parts = event_frame(rows, "part")
    dataset = Dataset.from_frame(parts.drop("part"), split=parts, split_column="part")
    assert dataset.task("test").input.fingerprint == dataset.train.fingerprint
