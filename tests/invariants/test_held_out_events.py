"""Held-out events change no weight."""

from functools import cache

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.models import SYSTEMS, system_class
from cllm4rec.training.config import TrainConfig
from tests.support.planted import (
    assert_bit_identical,
    assert_the_same_is_learned,
    events,
    world,
    world_with,
)
from tests.support.systems import fit


def other_held_out_items(*parts: str) -> pl.DataFrame:
    """The events with other items in the given parts; no user has an item twice."""
    frame, catalogue = events(), sorted(world().item_ids)
    taken = set(frame.select("user_id", "item_id").iter_rows())
    rows = []
    for row in frame.iter_rows(named=True):
        if row["part"] in parts:
            user, index = row["user_id"], catalogue.index(row["item_id"])
            others = [catalogue[(index + 7 * step) % len(catalogue)] for step in range(1, len(catalogue))]
            row["item_id"] = next(item for item in others if (user, item) not in taken)
            taken.add((user, row["item_id"]))
        rows.append(row)
    return pl.DataFrame(rows, schema=frame.schema)


@cache
def with_other_held_out_items() -> Dataset:
    return world_with(frame=other_held_out_items("validation", "test"))


@cache
def with_other_test_items() -> Dataset:
    return world_with(frame=other_held_out_items("test"))


def test_only_held_out_events_are_changed() -> None:
    dataset = world_with()
    for other, parts in (
        (with_other_held_out_items(), ("validation", "test")),
        (with_other_test_items(), ("test",)),
    ):
        assert other.user_ids.ids.equals(dataset.user_ids.ids)
        assert other.item_ids.ids.equals(dataset.item_ids.ids)
        for name in ("train", "validation", "test"):
            same = np.array_equal(other.only(name).interactions.items, dataset.only(name).interactions.items)
            assert same == (name not in parts), name


def test_held_out_events_change_no_weight_where_nothing_is_validated() -> None:
    assert_the_same_is_learned(world_with, with_other_held_out_items)


def test_test_events_change_no_weight_where_training_is_validated() -> None:
    assert_the_same_is_learned(world_with, with_other_test_items, validated=True)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "cllm4rec"])
def test_test_events_change_nothing_that_a_system_of_one_stage_learns(system: str) -> None:
    fitted = [
        fit(system_class(system)(), data, TrainConfig(epochs=8, warmup_steps=5))
        for data in (world_with(), with_other_test_items())
    ]
    assert fitted[0].config == fitted[1].config
    assert_bit_identical(*(model._arrays() for model in fitted))
