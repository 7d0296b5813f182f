"""Ids: look-up by text, numbers that depend on ids alone, hashes that collide."""

import gc
import pickle
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import IdMap, hash_column, hash_ids, listed_ids
from tests.support.datasets import event_frame, random_events, same_dataset
from tests.support.tables import refused


def test_ids_that_share_a_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash of the text's length alone gives the same dataset as the real hash."""
    events, series_hash = random_events(), pl.Series.hash
    expected = Dataset.from_frame(events, split="random", k_core=2)
    seeds = []

    def colliding(texts: pl.Series, seed: int = 0) -> pl.Series:
        seeds.append(seed)
        return texts.str.len_bytes().cast(pl.UInt64) if seed == 0 else series_hash(texts, seed)

    monkeypatch.setattr(pl.Series, "hash", colliding)
    collided = Dataset.from_frame(events, split="random", k_core=2)
    assert 1 in seeds
    assert (collided.fingerprint, collided.description) == (expected.fingerprint, expected.description)


def test_whole_numbers_and_their_texts_are_filtered_alike() -> None:
    """The ids are far apart and negative: none is an index."""
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 40, 400) * 10**15 - 10**16, generator.integers(-30, 0, 400)
    events = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": generator.integers(0, 9, 400)})
    as_text = events.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    for split in ("random", "leave-last-out", "none"):
        numbers = Dataset.from_frame(events, k_core=7, split=split)
        texts = Dataset.from_frame(as_text, k_core=7, split=split)
        assert 0 < len(numbers.interactions) < 400
        assert numbers.fingerprint == texts.fingerprint
        assert numbers.split_fingerprint == texts.split_fingerprint
        assert numbers.description == texts.description
        assert (numbers.users["user_id"].dtype, texts.users["user_id"].dtype) == (pl.Int64, pl.String)


def test_ids_are_found_by_their_text_and_unknown_ones_are_named() -> None:
    ids = IdMap(pl.Series(["007", "b", "7"]))
    assert ids.index(["7", "007", "7"]).tolist() == [2, 0, 2]
    assert ids.find(["b", "nobody"]).tolist() == [1, -1]
    assert IdMap(pl.Series([30, 7])).index(["7", 30]).tolist() == [1, 0]
    assert ids.names(np.array([2, 0])).to_list() == ["7", "007"]
    with pytest.raises(ValueError, match=r"user 'nobody' is not in the data \(2 of 3 unknown\)"):
        ids.index(["b", "nobody", "else"], "user")


@pytest.mark.parametrize("n_asked", [2, 150])
def test_ids_are_found_with_and_without_a_dictionary_of_all(n_asked: int) -> None:
    ids = pl.Series(["a b", "007", "7", " x", "é"] + [f"id {i}" for i in range(300)])
    asked = (["7", "nobody", "é", "007"] * n_asked)[:n_asked]
    expected = {"7": 2, "nobody": -1, "é": 4, "007": 1}
    assert IdMap(ids).find(asked).tolist() == [expected[text] for text in asked]
    assert IdMap(pl.Series([5, 7, 12])).find([12, "5", 6][:n_asked]).tolist() == [2, 0, -1][:n_asked]


def test_hashes_are_those_of_the_ids_in_their_order() -> None:
    """Texts, categories and whole numbers, each distinct id hashed once."""
    for ids in (pl.Series(["b", "a", "é", "b", "a"]), pl.Series([7, -3, 7, 10**12])):
        expected = hash_ids(ids.to_list())
        for column in (ids, ids.cast(pl.String), ids.cast(pl.String).cast(pl.Categorical)):
            np.testing.assert_array_equal(hash_column(column), expected)
            np.testing.assert_array_equal(IdMap(column).hashes, expected)
        ordered = IdMap.ordered_by_hash(ids)
        np.testing.assert_array_equal(ordered.hashes, np.unique(expected))
        np.testing.assert_array_equal(ordered.hashes, hash_ids(ordered.ids))
    assert len(hash_column(pl.Series([], dtype=pl.String))) == 0


def test_an_id_is_hashed_once_for_a_dataset_and_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counting(column: Iterable[object]) -> np.ndarray:
        names = list(column)
        hashed.extend(map(str, names))
        return hash_ids(names)

    monkeypatch.setattr("cllm4rec.data.ids.hash_ids", counting)
    dataset = Dataset.from_frame(random_events(), split="random")
    for subset in (dataset, dataset.train, dataset.only("train", "test"), dataset.seen):
        assert len(subset.tie_order) == dataset.n_items
    ids = [*dataset.users["user_id"], *dataset.items["item_id"]]
    assert sorted(hashed) == sorted(ids)


def test_an_index_without_an_item_has_no_name() -> None:
    dataset = Dataset.from_frame(event_frame([("ann", "x")]))
    with pytest.raises(ValueError, match="-1"):
        dataset.item_ids.names(np.array([0, -1]))


def test_numbers_do_not_depend_on_the_order_of_rows() -> None:
    events = random_events(2).unique(["user_id", "item_id"], maintain_order=True)
    items = pl.DataFrame(
        {"item_id": [f"i{i}" for i in range(25)], "title": [f"Title {i}" for i in range(25)]}
    )
    dataset = Dataset.from_frame(events, items)
    shuffled = Dataset.from_frame(events.sample(fraction=1, shuffle=True, seed=5), items.reverse())
    assert same_dataset(dataset, shuffled)
    assert dataset.fingerprint == shuffled.fingerprint
    np.testing.assert_array_equal(dataset.tie_order, shuffled.tie_order)


def test_numbers_say_nothing_about_popularity_or_age() -> None:
    rows = [(f"u{user}", f"i{item}", item) for item in range(200) for user in range(1 + item)]
    dataset = Dataset.from_frame(event_frame(rows, "timestamp"))
    popularity = np.bincount(dataset.interactions.items)
    for order in (np.arange(200), dataset.tie_order):
        assert abs(np.corrcoef(order, popularity)[0, 1]) < 0.25  # standard error 0.07


@pytest.mark.parametrize(
    "ids",
    [
        [7, 30],
        (7, 30),
        np.array([7, 30], dtype=np.int32),
        [np.int64(7), "30"],
        pl.Series([7, 30]),
        pl.Series(["7", "30"]),
        pl.Series(["7", "30"], dtype=pl.Categorical),
        pd.Series([7, 30], index=["x", "y"]),
        pd.Index(["7", "30"]),
        np.array(["7", "30"]),
        pd.Series(["7", "30"], dtype="category"),
        pd.Series([7, 30], dtype="Int64"),
        pd.Series(["7", "30"], dtype=pd.ArrowDtype(pa.string())),
        pa.array([7, 30]),
        pa.array(["7", "30"]),
        pa.array(["7", "30"]).dictionary_encode(),
        pa.chunked_array([["7"], ["30"]]),
        [pa.scalar("7"), pa.scalar(30)],
    ],
)
def test_ids_may_be_listed_in_arrays_and_columns(ids: Any) -> None:
    listed = listed_ids(ids, "users")
    assert {type(value) for value in listed} <= {int, str}
    for known in (pl.Series([30, 7]), pl.Series(["30", "7"])):
        assert IdMap(known).index(listed).tolist() == [1, 0]
        assert IdMap(known).index(ids).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("ann", "`users` is 'ann': expected a list of ids"),
        (7, "`users` is 7: expected a list of ids"),
        (np.int64(7), "expected a list of ids"),
        (None, "`users` is None: expected a list of ids"),
        ({"ann": 1}, "expected a list of ids"),
        ([3.0], "`users` holds 3.0: expected ids, text or whole numbers"),
        (pl.Series([1, None]), "`users` holds None"),
        (pd.Series([1, None]), "`users` holds 1.0"),
        ([True], "`users` holds True"),
        ([["ann"]], "`users` holds ['ann']"),
        (pa.scalar("ann"), "`users` is 'ann': expected a list of ids"),
        (pa.array([1, None]), "`users` holds None"),
        (pa.array([True]), "`users` holds True"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(ids: object, words: str) -> None:
    assert words in refused(listed_ids, ids, "users")


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame, pd.DataFrame, pa.table, pa.record_batch])
def test_a_table_as_a_list_of_ids_is_refused_with_the_way_out(kind: Callable[[object], object]) -> None:
    table, ids = kind({"user_id": ["ann"], "item_id": ["x"]}), IdMap(pl.Series(["ann"]))
    for name, call in (("users", lambda table: listed_ids(table, "users")), ("ids", ids.index)):
        message = refused(call, table)
        assert f"`{name}` is a table, not a list of ids: give a column of it" in message
        assert "dataset=dataset.with_histories(table)" in message


def test_a_single_id_is_not_looked_up_letter_by_letter() -> None:
    assert "`ids` is 'ann': expected a list of ids" in refused(IdMap(pl.Series(["ann"])).index, "ann", "user")


def test_maps_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of a service compare the ids of the model and of the dataset for each request."""
    ids, equal, other = (IdMap(pl.Series(names)) for names in (["a", "b"], ["a", "b"], ["b", "a"]))
    compared, equals = [], pl.Series.equals

    def counted(series: pl.Series, others: pl.Series) -> bool:
        compared.append(others)
        return equals(series, others)

    monkeypatch.setattr(pl.Series, "equals", counted)
    assert ids.is_same(ids) and not compared
    assert [ids.is_same(equal) for _ in range(3)] == [True] * 3 and len(compared) == 1
    assert [ids.is_same(other) for _ in range(3)] == [False] * 3 and len(compared) == 2
    assert ids.is_same(equal)


def test_a_compared_map_is_pickled_and_keeps_no_other_alive() -> None:
    ids, other = IdMap(pl.Series(["a", "b"])), IdMap(pl.Series(["a", "b"]))
    assert ids.is_same(other)
    assert pickle.loads(pickle.dumps(ids)).is_same(other)
    kept = weakref.ref(other)
    del other
    gc.collect()
    assert kept() is None
