"""Recommending by ids: whose events are read, whole numbers as ids, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from cllm4rec import EASE, Dataset, EASEConfig, ItemKNN, ItemKNNConfig, Popularity, load
from cllm4rec.models.description import FORMAT_VERSION
from cllm4rec.models.recommendation import (
    Catalogue,
    of_histories,
    recommendation_table,
    rows_of_lists,
)
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call
from tests.support.datasets import numbered_dataset
from tests.support.tables import refused
from tests.support.worlds import taste_dataset


@pytest.fixture
def ease() -> EASE:
    return EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset())


def test_ids_are_found_as_numbers_and_as_texts_and_returned_as_they_are_in_the_data(ease: EASE) -> None:
    table = ease.recommend([4, 0], 3)
    assert table.schema["user_id"] == table.schema["item_id"] == pl.Int64
    assert_frame_equal(ease.recommend(["4", "0"], 3), table)
    assert_frame_equal(ease.recommend(pl.Series([4, 0]), 3), table)
    histories = ease.recommend(histories=[[1, 2], [3]], allow=[5, 6])
    assert_frame_equal(ease.recommend(histories=(["1", "2"], ("3",)), allow=["6", "5"]), histories)


@pytest.mark.parametrize(
    "dataset", [numbered_dataset(), numbered_dataset(titled=True)], ids=["no titles", "titles"]
)
def test_rows_of_lists_are_those_of_the_table(dataset: Dataset) -> None:
    model = EASE(EASEConfig(regularization=10.0)).fit(dataset)
    lists = model.rank(np.arange(4), dataset, k=3)
    lists.items[1], lists.items[2, 1:] = -1, -1  # an empty list, and a short one
    rows = rows_of_lists(lists, dataset)
    assert [len(each) for each in rows] == [3, 0, 1, 3]
    table = recommendation_table(lists, dataset).drop("user_id")
    assert [row for each in rows for row in each] == table.to_dicts()
    assert ("title" in table.columns) == ("title" in dataset.items.columns)


@pytest.mark.parametrize(
    "column", [np.array, pl.Series, pd.Series, pa.array, lambda ids: pa.chunked_array([ids])]
)
def test_ids_may_be_arrays_and_columns(ease: EASE, column: Callable[[list[int]], object]) -> None:
    assert_frame_equal(ease.recommend(column([4, 0]), deny=column([5])), ease.recommend([4, 0], deny=[5]))
    expected = ease.recommend(histories=[[1, 2], [3, 4]])
    assert_frame_equal(ease.recommend(histories=[column([1, 2]), column([3, 4])]), expected)
    assert_frame_equal(ease.recommend(histories=column([[1, 2], [3, 4]])), expected)


def test_a_dataset_may_be_named_by_its_folder(ease: EASE, tmp_path: Path) -> None:
    numbered_dataset().save(tmp_path / "data")
    for folder in (tmp_path / "data", str(tmp_path / "data")):
        assert_frame_equal(ease.recommend([4, 0], dataset=folder), ease.recommend([4, 0]))


def test_of_repeated_items_of_a_history_the_latest_counts(ease: EASE) -> None:
    """In a list and in a table of events alike."""
    once = ease.recommend(histories=[[2, 1], [1, 3]])
    assert_frame_equal(ease.recommend(histories=[[1, 2, 1, 1], [1, 1, 3]]), once)
    catalogue = Catalogue(ease.item_ids, ease.items, ease.tie_order)
    events = of_histories([[1, 2, 1, 1], [1, 1, 3]], catalogue).interactions
    assert ease.item_ids.names(events.items).to_list() == [2, 1, 1, 3]
    rows = [(0, item, time) for time, item in enumerate([1, 2, 1, 1])]
    rows += [(1, item, time) for time, item in enumerate([1, 1, 3])]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = numbered_dataset().with_histories(frame)
    for row in (0, 1):
        number = dataset.user_ids.index([row])[0]
        assert dataset.interactions.history(number).tolist() == events.history(row).tolist()


def test_there_are_titles_only_where_the_items_have_some(ease: EASE) -> None:
    assert ease.recommend([0]).columns == ["user_id", "item_id", "rank", "score"]
    titled = Popularity().fit(numbered_dataset(titled=True)).recommend([0])
    assert titled["title"].to_list() == [f"Title {item}" for item in titled["item_id"]]


def test_lists_end_where_the_items_end(ease: EASE) -> None:
    assert ease.recommend([0], 1000)["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    assert len(ease.recommend(histories=[list(range(10))])) == 0


@pytest.mark.parametrize("arguments", [{"users": []}, {"histories": []}])
def test_nobody_gets_an_empty_table_of_the_same_columns(ease: EASE, arguments: dict[str, list[int]]) -> None:
    assert ease.recommend(**arguments).schema == ease.recommend([0]).schema


class UserBias(EASE):
    """Scores that depend on the number of a trained user, -1 for new ones."""

    name = "ease"

    def _score(self, users, trained_users, seen):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return super()._score(users, trained_users, seen) + 100.0 * (1 + trained_users[:, None])


def test_a_history_is_never_taken_for_a_trained_user_of_the_same_id() -> None:
    """Users 0 .. 5 were trained; the histories are named 0 .. 5 too."""
    model = UserBias(EASEConfig(regularization=10.0)).fit(numbered_dataset())
    assert model.recommend(range(6))["score"].min() > 90
    table = model.recommend(histories=[[user] for user in range(6)])
    assert table["user_id"].unique().sort().to_list() == list(range(6))
    assert table["score"].max() < 90
    catalogue = Catalogue(model.item_ids, model.items, model.tie_order)
    histories, users = of_histories([[user] for user in range(6)], catalogue), np.arange(6)
    for seen in (histories, histories.seen, replace(histories), replace(histories, users=histories.users)):
        assert model.score(users, seen).max() < 90


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give `users`, with or without `dataset`, or `histories`, or a `wish`"),
        ({"users": ["\udcff"]}, r"user '\\udcff' is not in the data \(1 of 1 unknown\)"),
        ({"histories": [["\udcff"]]}, r"item '\\udcff' of the histories is none of the model's items"),
        ({"users": [0], "where": 'title == "\udcff"'}, r"`where` 'title == \"\\udcff\"' is no Unicode text"),
        ({"users": [0], "histories": [[1]]}, "give either `users`"),
        ({"histories": [[1]], "dataset": numbered_dataset()}, "give either `users`"),
        ({"users": "0"}, "`users` is '0': expected a list of ids"),
        ({"users": 0}, "`users` is 0: expected a list of ids"),
        ({"users": [0, 17, 18]}, r"user '17' is not in the data \(2 of 3 unknown\)"),
        ({"histories": "12"}, "12: there is no such file"),
        ({"histories": 12}, "`histories` is 12: expected a list of lists of ids, or a table of events"),
        ({"histories": ["12"]}, r"`histories\[0\]` is '12': expected a list of ids"),
        ({"histories": [[1], 2]}, r"`histories\[1\]` is 2: expected a list of ids"),
        ({"histories": [[1], []]}, r"`histories\[1\]` is empty: there is nothing to recommend from"),
        ({"histories": [[1, "x"], ["y"]]}, r"item 'x' of the histories is none .* \(2 of 3 unknown\)"),
        ({"users": [0], "allow": "12"}, "`allow` is '12': expected a list of ids"),
        ({"users": [0], "deny": [77]}, r"`deny`: item '77' is not in the data \(1 of 1 unknown\)"),
        ({"users": [0], "allow": []}, "`allow` leaves no item to recommend"),
        ({"users": [0], "repeats": "no"}, "`repeats` is 'no': give True or False"),
        ({"users": [0], "k": 0}, "`k` is 0: ask for at least one item"),
        ({"users": [0], "k": 5.0}, "`k` is 5.0: expected a whole number of items"),
        ({"users": [], "k": "5"}, "`k` is '5': expected a whole number of items"),
        ({"histories": [[1]], "k": None}, "`k` is None: expected a whole number of items"),
        ({"users": pd.DataFrame({"user_id": [0]})}, "`users` is a table, not a list of ids"),
        ({"histories": pl.DataFrame({"item_id": [0]})}, "the events: no column for user_id"),
        ({"histories": [pa.table({"item_id": [0]})]}, r"`histories\[0\]` is a table, not a list of ids"),
        ({"histories": pa.array([[1], None])}, r"`histories\[1\]` is None: expected a list of ids"),
        ({"users": [0], "deny": pl.DataFrame({"item_id": [0]})}, "`deny` is a table, not a list of ids"),
        ({"users": [0], "dataset": pl.DataFrame({"item_id": [0]})}, ".* is no dataset: give one"),
    ],
)
def test_what_cannot_be_recommended_is_refused_in_one_line(
    ease: EASE, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        ease.recommend(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "users", [[0.7], ["reader-0109"], 3, None, [True], [[0]], pl.DataFrame({"user_id": [0]})]
)
def test_what_is_no_array_of_user_numbers_is_refused_in_one_line(ease: EASE, users: object) -> None:
    seen = numbered_dataset()
    for method in (ease.rank, ease.score, lambda users, seen: list(ease.rank_batches(users, seen))):
        with pytest.raises(ValueError, match="^`users` is .*: expected an array of user numbers") as caught:
            method(users, seen)
        assert "dataset.user_ids.index(ids) gives those of ids" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_user_numbers_may_be_any_whole_numbers_in_a_row(ease: EASE) -> None:
    expected = ease.rank(np.array([4, 0]), numbered_dataset(), k=3)
    for users in ([4, 0], np.array([4, 0], dtype=np.uint8), pl.Series([4, 0]), pa.array([4, 0])):
        ranking = ease.rank(users, numbered_dataset(), k=np.int64(3))
        np.testing.assert_array_equal(ranking.items, expected.items)
    assert ease.rank([], numbered_dataset()).items.shape == (0, 10)


def test_lists_print_as_one_short_line(ease: EASE) -> None:
    assert (
        repr(ease.rank(np.arange(6), numbered_dataset(), k=3))
        == "Ranking: users (6,), items and scores (6, 3)"
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset `data`, and a run `run` of ItemKNN on it."""
    folder = tmp_path_factory.mktemp("recommendation")
    taste_dataset().save(folder / "data")
    flags = ("--system", "itemknn", "--neighbours", 10, "--shrinkage", 5)
    call("pretrain", *flags, "--dataset", folder / "data", "--output", folder / "run")
    return folder


def fitted() -> ItemKNN:
    return ItemKNN(ItemKNNConfig(neighbours=10, shrinkage=5.0)).fit(taste_dataset())


def test_a_run_recommends_to_the_users_of_its_dataset(folders: Path, tmp_path: Path) -> None:
    users = taste_dataset().user_ids.ids[:4]
    table = load(folders / "run").recommend(users, 6)
    assert_frame_equal(table, fitted().recommend(users, 6))
    flags = ("--run", folders / "run", "--users", ",".join(users), "--k", 6)
    call("recommend", *flags, "--output", tmp_path / "lists.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "lists.parquet"), table)


def test_the_dataset_of_a_run_is_read_when_it_is_needed_and_once(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[RunFolder] = []
    read: Callable[[RunFolder], Dataset] = RunFolder.dataset
    monkeypatch.setattr(RunFolder, "dataset", lambda run: reads.append(run) or read(run))
    model, users = load(folders / "run"), taste_dataset().user_ids.ids
    model.recommend(histories=[taste_dataset().item_ids.ids[:2]])
    assert not reads
    assert_frame_equal(model.recommend(users[:2]), model.recommend(users[:2]))
    assert len(reads) == 1


def test_a_dataset_that_has_moved_is_named(folders: Path, tmp_path: Path) -> None:
    (folders / "data").rename(tmp_path / "moved")
    users, dataset = taste_dataset().user_ids.ids[:2], Dataset.load(tmp_path / "moved")
    try:
        with pytest.raises(ValueError, match="no longer in .*: say where with `dataset`"):
            load(folders / "run").recommend(users)
        expected = fitted().recommend(users)
        assert_frame_equal(load(folders / "run", dataset=dataset).recommend(users), expected)
        assert_frame_equal(load(folders / "run").recommend(users, dataset=dataset), expected)
    finally:
        (tmp_path / "moved").rename(folders / "data")


def test_a_model_folder_holds_titles_and_no_events(tmp_path: Path) -> None:
    fitted().save(tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "items.parquet", "manifest.json", "model.json", "model.safetensors", "users.parquet",
    ]  # fmt: skip
    model = load(tmp_path / "model", verify=True)
    assert_frame_equal(model.items, taste_dataset().items)
    assert model.tie_order.tolist() == taste_dataset().tie_order.tolist()
    with pytest.raises(ValueError, match="names no dataset: give `dataset`"):
        model.recommend(taste_dataset().user_ids.ids[:2])
    assert_frame_equal(
        load(tmp_path / "model", dataset=taste_dataset()).recommend(taste_dataset().user_ids.ids[:2]),
        fitted().recommend(taste_dataset().user_ids.ids[:2]),
    )


@pytest.mark.parametrize("kind", ["missing", "empty", "dataset"])
def test_a_folder_without_a_model_is_refused_in_one_line(kind: str, folders: Path, tmp_path: Path) -> None:
    folder = {"missing": tmp_path / "none", "empty": tmp_path, "dataset": folders / "data"}[kind]
    with pytest.raises(ValueError, match="is not a run folder .* nor a model folder") as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_a_model_folder_are_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path / "model")
    with pytest.raises(ValueError, match="itemknn has no backbone: leave `backbone` out"):
        load(tmp_path / "model", backbone=tmp_path)
    with pytest.raises(ValueError, match="was trained on other users: number 0 is .* in this dataset"):
        load(tmp_path / "model", dataset=numbered_dataset())


def test_a_model_folder_of_another_version_or_system_is_refused(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    text = (tmp_path / "model.json").read_text()
    for old, new, message in (
        (
            f'"format_version": {FORMAT_VERSION}',
            '"format_version": 3',
            "format_version 3 is unknown.*: train this stage",
        ),
        ('"system": "itemknn"', '"system": "xyz"', "is damaged .*'xyz' is unknown.* train this stage again"),
    ):
        assert old in text
        (tmp_path / "model.json").write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message) as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)


def test_ranking_refuses_what_is_no_dataset_and_masks_in_other_numbers(ease: EASE) -> None:
    dataset = numbered_dataset()
    numbers = np.array([0])
    assert refused(ease.rank, numbers, None) == "`seen` is of type NoneType: expected a Dataset"
    assert refused(ease.rank, numbers, dataset, 3, 5) == "`masked` is of type int: expected a Dataset"
    frame = pl.DataFrame({"user_id": [0, 1], "item_id": [0, 1]})
    message = refused(ease.rank, numbers, dataset, 3, dataset.with_histories(frame))
    assert message == "`masked` has other users than `seen`, or another order of them"
    assert "there is no user 9223372036854775808 in data" in refused(
        ease.rank, np.array([2**63], dtype=np.uint64), dataset
    )


def test_a_list_of_ids_is_no_array_without_dimensions(ease: EASE) -> None:
    message = refused(ease.recommend, np.array("0"))
    assert message == "`users` is '0': expected a list of ids"


def test_a_table_of_histories_has_its_own_users(ease: EASE, tmp_path: Path) -> None:
    """As a file, as a table, and as lists: the same lists, under the users of the table."""
    rows = [("b", 3, 20), ("a", 1, 10), ("b", 2, 10), ("b", 3, 5)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_csv(tmp_path / "today.csv")
    table = ease.recommend(histories=frame)
    assert table["user_id"].unique(maintain_order=True).to_list() == ["b", "a"]
    for other in (frame.to_pandas(), frame.to_arrow(), tmp_path / "today.csv", str(tmp_path / "today.csv")):
        again = ease.recommend(histories=other)
        assert_frame_equal(again, table)
    of_lists = ease.recommend(histories=[[2, 3], [1]])
    assert_frame_equal(table.drop("user_id"), of_lists.drop("user_id"))


def test_users_of_a_table_of_histories_are_not_those_of_training(ease: EASE) -> None:
    """A user 4 of the table has one event, whatever the user 4 of training has."""
    frame = pl.DataFrame({"user_id": [4], "item_id": [9]})
    lists = ease.recommend(histories=frame, k=10)
    assert_frame_equal(lists.drop("user_id"), ease.recommend(histories=[[9]], k=10).drop("user_id"))
    assert lists["user_id"].unique().to_list() == [4]


def test_a_table_of_histories_with_unknown_items_is_refused(ease: EASE) -> None:
    frame = pl.DataFrame({"user_id": ["a"] * 3, "item_id": [1, 77, 78]})
    line = refused(lambda: ease.recommend(histories=frame))
    assert "item '77' of the histories is none of the model's items" in line
    assert "(2 of 3 unknown)" in line


def test_lists_may_hold_items_of_their_own_history(ease: EASE) -> None:
    lists = ease.recommend(histories=[[1, 2]], k=10, repeats=True)
    assert len(lists) == 10
    without = ease.recommend(histories=[[1, 2]], k=10)
    assert_frame_equal(lists.filter(~pl.col("item_id").is_in([1, 2])).drop("rank"), without.drop("rank"))
    assert len(ease.recommend([0], k=10, repeats=True)) == 10


def test_lists_hold_items_that_fulfil_a_condition() -> None:
    ease = EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset(titled=True))
    lists = ease.recommend(histories=[[1, 2]], k=10, where="item_id >= 5 and not title.is_in(['Title 7'])")
    assert sorted(lists["item_id"]) == [5, 6, 8, 9]


def test_an_empty_table_of_histories_asks_for_no_lists(ease: EASE) -> None:
    empty = pl.DataFrame(schema={"user_id": pl.Int64, "item_id": pl.Int64})
    lists = ease.recommend(histories=empty)
    assert (len(lists), lists.columns) == (0, ["user_id", "item_id", "rank", "score"])
