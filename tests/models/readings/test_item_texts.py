"""The text of an item, and its vector: standardised on training items, of no other item."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

import cllm4rec
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.readings.item_texts import ItemTexts, ItemVectors, item_texts
from cllm4rec.models.readings.item_vectors import item_vectors
from tests.support.encoders import Letters
from tests.support.tables import refused

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e", "f"],
        "title": ["Alien", "Brazil (1985)", "Cube", "", "", "Cube"],
        "description": ["A crew meets it.", "", "Rooms. ", "", "Oaken.", ""],
        "categories": ["Horror, Science Fiction", "", "", "", "", ""],
        "brand": ["Fox.", "", "", "", "", ""],
        "year": ["1979", "1985", "1997", "1999", "", ""],
    }
)
TEXTS = {
    "a": "Alien (1979). Fox. Horror, Science Fiction. A crew meets it.",
    "b": "Brazil (1985)",
    "c": "Cube (1997). Rooms.",
    "d": "1999",
    "e": "Oaken.",
    "f": "Cube",
}


def world(items: pl.DataFrame = ITEMS) -> Dataset:
    """Items a, b, c in training events; d and e in test events only; f in validation."""
    parts = ["train"] * 3 + ["test"] * 2 + ["validation"]
    events = pl.DataFrame({"user_id": [1] * 6, "item_id": list("abcdef"), "part": parts})
    return Dataset.from_frame(events, items)


def by_id(dataset: Dataset, values: Sequence[object] | np.ndarray) -> dict[str, object]:
    return dict(zip(dataset.item_ids.ids.to_list(), values, strict=True))


def test_a_text_has_the_fields_in_one_order() -> None:
    dataset = world()
    assert by_id(dataset, item_texts(dataset)) == TEXTS
    assert by_id(dataset.train, item_texts(dataset.train)) == TEXTS
    texts = ItemTexts.of(dataset)
    assert texts.texts == [text for text in item_texts(dataset) if text]
    assert [item_texts(dataset)[item] for item in texts.items] == texts.texts


def test_fields_are_chosen() -> None:
    dataset = world()
    texts = by_id(dataset, item_texts(dataset, ["description", "title"]))
    assert (texts["a"], texts["d"], texts["e"]) == ("Alien. A crew meets it.", "", "Oaken.")
    line = refused(ItemTexts.of, dataset, ["title", "plot"])
    assert line.startswith("`fields`: items have no 'plot': the dataset has title, description,")


def test_items_without_texts_are_refused() -> None:
    line = refused(item_vectors, world(ITEMS.select("item_id", title=pl.lit(""))), Letters())
    assert line.startswith("no item has a text: prepare the dataset with a table of items")


def test_each_distinct_text_is_read_once() -> None:
    letters = Letters()
    vectors = ItemTexts(pl.Series(["x", "y", "z"]), ["an oak"] * 2, np.array([0, 2])).vectors(letters)
    assert letters.read == [["an oak"]]
    np.testing.assert_array_equal(vectors.values, [[2, 0, 1], [0, 0, 0], [2, 0, 1]])
    assert vectors.present.tolist() == [True, False, True]


def test_reviews_of_training_events_stand_in_for_texts() -> None:
    """An item's vector is the mean over its reviews that have letters; held-out reviews are not read."""
    events = pl.DataFrame(
        {
            "user_id": [1, 2, 3, 4, 1, 2],
            "item_id": ["a", "a", "a", "b", "b", "c"],
            "review_text": ["an oak", "a", "12", "ooo", "not read", "nor this"],
            "part": ["train"] * 4 + ["test", "validation"],
        }
    )
    dataset, letters = Dataset.from_frame(events), Letters()
    vectors = item_vectors(dataset, letters, standardise=False)
    assert sorted(letters.read[0]) == ["12", "a", "an oak", "ooo"]
    expected = {"a": [1.5, 0, 0.5], "b": [0, 0, 3], "c": [0, 0, 0]}
    assert by_id(dataset, vectors.values.tolist()) == expected
    assert by_id(dataset, vectors.present.tolist()) == {"a": True, "b": True, "c": False}
    line = refused(item_vectors, dataset, Letters(), fields=["title"])
    assert "the dataset has no texts" in line


def test_standardised_by_hand() -> None:
    """Over rows 0, 1 and 3 the first dimension is 1, 3, 5; the second is constant."""
    values = np.array([[1, 7], [3, 7], [0, 0], [5, 7], [9, 8]], dtype=np.float32)
    vectors = ItemVectors(pl.Series(range(5)), values, np.array([True, True, False, True, True]))
    standardised = vectors.standardised(np.array([True, True, True, True, False]))
    deviation = np.sqrt(8 / 3)
    expected = [[-2 / deviation, 0], [0, 0], [0, 0], [2 / deviation, 0], [6 / deviation, 0]]
    np.testing.assert_allclose(standardised.values, expected, rtol=1e-6)
    assert standardised.values.dtype == np.float32


def test_a_constant_dimension_of_large_numbers_is_no_noise() -> None:
    values = np.array([[0.1 + 1e-8], [0.1], [0.1]], dtype=np.float32) * 1e6
    vectors = ItemVectors(pl.Series(range(3)), values, np.ones(3, dtype=bool))
    assert vectors.standardised(np.ones(3, dtype=bool)).values.tolist() == [[0], [0], [0]]


def test_standardised_on_items_with_training_events() -> None:
    dataset = world()
    vectors = item_vectors(dataset, Letters())
    trained = np.isin(dataset.item_ids.ids.to_list(), ["a", "b", "c"])
    np.testing.assert_allclose(vectors.values[trained].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(vectors.values[trained].std(0), 1, rtol=1e-6)
    raw = item_vectors(dataset, Letters(), standardise=False)
    np.testing.assert_array_equal(raw.values, ItemTexts.of(dataset).vectors(Letters()).values)
    assert not raw.present[dataset.item_ids.find(["d"])].any()  # "1999" has no letter
    assert not vectors.values[dataset.item_ids.find(["d"])].any()


def test_texts_of_items_without_training_events_change_no_other_vector() -> None:
    other = ITEMS.with_columns(title=pl.when(pl.col("item_id") == "e").then(pl.lit("ooo")).otherwise("title"))
    vectors, changed = item_vectors(world(), Letters()), item_vectors(world(other), Letters())
    (differing,) = np.flatnonzero((vectors.values != changed.values).any(1))
    assert world().item_ids.ids[int(differing)] == "e"


def test_no_training_item_with_a_text_is_refused() -> None:
    only_e = ITEMS.select("item_id", title=pl.when(pl.col("item_id") == "e").then(pl.lit("ooo")))
    line = refused(item_vectors, world(only_e), Letters())
    assert line.startswith("no item with a training event has a vector")


class Wrong(Letters):
    def __init__(self, vectors: object) -> None:
        super().__init__()
        self.vectors = vectors

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array(self.vectors)


@pytest.mark.parametrize("vectors", [[[1.0]] * 5, [1.0] * 6, [[1.0]] * 5 + [[np.nan]]])
def test_an_encoder_that_gives_something_else_is_refused_each_time(vectors: list[object]) -> None:
    for _ in range(2):
        line = refused(cllm4rec.item_vectors, world(), Wrong(vectors))
        assert "expected a row of finite numbers for each" in line


def test_arguments_without_effect_are_refused() -> None:
    dataset = world()
    assert refused(item_vectors, dataset) == "give one of `encoder` and `item_vectors`"
    assert refused(item_vectors, dataset, Letters(), "file.npy") == "give one of `encoder` and `item_vectors`"
    assert "`depth` is of causal language models" in refused(item_vectors, dataset, Letters(), depth=0.5)
    for settings in ({"depth": 0.5}, {"fields": ["title"]}):
        line = refused(item_vectors, dataset, item_vectors="file.npy", **settings)
        assert "has no effect on vectors of a file" in line
    for depth in (0.0, 1.1, float("nan")):
        assert refused(item_vectors, dataset, "model", depth=depth).startswith(f"`depth` is {depth}: ")
    assert "there is no such folder" in refused(item_vectors, dataset, "./absent")


def test_arguments_of_another_kind_are_refused() -> None:
    dataset = world()
    assert "`item_vectors` is a ndarray: give the path of a file" in refused(
        item_vectors, dataset, item_vectors=np.zeros((6, 3))
    )
    assert "`encoder` is a function: give a name, a folder, or an object with the method encode(texts)" in (
        refused(item_vectors, dataset, encoder=lambda texts: texts)
    )
