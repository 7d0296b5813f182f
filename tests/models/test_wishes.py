"""Lists that follow a wish: by hand, in any batch, without users, and of reviews."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cllm4rec import EASE, Dataset, EASEConfig, ItemKNN, ItemKNNConfig, load
from cllm4rec.corpora.word_search import WordSearch
from cllm4rec.models.wishes import WEIGHT
from tests.support.datasets import numbered_dataset
from tests.support.tables import refused


@pytest.fixture
def titled() -> EASE:
    """EASE on items whose titles are `Title 0` .. `Title 9`."""
    return EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset(titled=True))


def test_a_wish_adds_to_standardised_scores(titled: EASE) -> None:
    history, k = [[1, 2]], 10
    plain = titled.recommend(histories=history, k=k, repeats=True).sort("item_id")
    lists = titled.recommend(histories=history, k=k, repeats=True, wish="title 7").sort("item_id")
    scores = plain["score"].to_numpy()
    expected = (scores - scores.mean()) / scores.std()
    expected += WEIGHT * WordSearch([[title] for title in plain["title"]]).scores("title 7")
    np.testing.assert_allclose(lists["score"], expected, rtol=1e-4, atol=1e-5)
    places = [
        titled.recommend(histories=history, **wish)["item_id"].to_list().index(7)
        for wish in ({}, {"wish": "title 7"})
    ]
    assert places[1] < places[0]


def test_wishes_move_the_lists_of_users_in_any_batch(titled: EASE, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = titled.recommend([4, 0, 2], wish="9 not 5", deny=[3])
    monkeypatch.setattr("cllm4rec.models.base.SCORES_AT_ONCE", 10)
    assert_frame_equal(titled.recommend([4, 0, 2], wish="9 not 5", deny=[3]), lists)
    for user in (4, 0, 2):
        alone = titled.recommend([user], wish="9 not 5", deny=[3])
        assert_frame_equal(lists.filter(pl.col("user_id") == user), alone)


def test_a_wish_alone_lists_items_with_its_words(titled: EASE, tmp_path: Path) -> None:
    """In the order of their scores; a model folder needs no dataset for it."""
    titled.save(tmp_path / "model")
    for model in (titled, load(tmp_path / "model")):
        lists = model.recommend(wish="3 8 not 5", where="item_id < 8")
        assert lists.select("user_id", "item_id", "rank", "title").rows() == [(0, 3, 1, "Title 3")]
        everything = model.recommend(wish="title", k=3)
        assert len(everything) == 3
    with pytest.raises(ValueError, match="`k` is 0: ask for at least one item"):
        titled.recommend(wish="title", k=0)


def test_without_titles_a_wish_reads_reviews_of_training(tmp_path: Path) -> None:
    """They are in the dataset, which a model folder does not name."""
    rows = [(user, item, f"word{item} told") for user in range(6) for item in range(user, user + 4)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "review_text"], orient="row")
    dataset = Dataset.from_frame(frame, split="random")
    model = ItemKNN(ItemKNNConfig(neighbours=5, shrinkage=1.0)).fit(dataset)
    trained = dataset.item_ids.names(np.unique(dataset.train.interactions.items)).to_list()
    assert model.recommend(wish=f"word{trained[0]}")["item_id"].to_list() == [trained[0]]
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    line = refused(lambda: again.recommend(wish="told"))
    assert "their reviews are in the dataset of training, which is not known: load the model with it" in line
    assert line == refused(lambda: again.recommend(histories=[[1]], wish="told"))
    lists = load(tmp_path / "model", dataset).recommend(wish="told", k=100)
    assert sorted(lists["item_id"]) == sorted(trained)


def test_items_without_texts_take_no_wish() -> None:
    ease = EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset())
    assert "the items have no texts: leave `wish` out" in refused(lambda: ease.recommend([0], wish="a"))


def test_reviews_are_those_of_training_whatever_dataset_has_the_users() -> None:
    rows = [(user, item, f"word{item}") for user in range(6) for item in range(user, user + 4)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "review_text"], orient="row")
    dataset = Dataset.from_frame(frame, split="random")
    model = ItemKNN(ItemKNNConfig(neighbours=5, shrinkage=1.0)).fit(dataset)
    item = dataset.item_ids.names(dataset.train.interactions.items[:1])[0]
    other = dataset.with_histories(pl.DataFrame({"user_id": ["x"], "item_id": [(item + 1) % 9]}))
    lists = model.recommend(["x"], wish=f"word{item}", dataset=other)
    assert lists["item_id"][0] == item


def test_a_model_that_is_fitted_again_reads_the_new_texts() -> None:
    model = EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset(titled=True))
    model.recommend(wish="title")
    rows = [(user, (user + step) % 5) for user in range(6) for step in range(3)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    items = pl.DataFrame({"item_id": range(5), "title": ["apple", "pear", "fig", "plum", "nut"]})
    model.fit(Dataset.from_frame(events, items))
    assert model.recommend(wish="pear")["item_id"].to_list() == [1]


def test_a_wish_alone_takes_nothing_of_users(titled: EASE, caplog: pytest.LogCaptureFixture) -> None:
    for options in ({"diversity": 0.5}, {"repeats": True}, {"dataset": numbered_dataset()}):
        assert refused(lambda options=options: titled.recommend(wish="7", **options)).startswith(
            "a `wish` alone takes neither"
        )
    for wish in ("not 7", "unheard not 7"):
        assert "add one to look for" in refused(lambda wish=wish: titled.recommend(wish=wish))
    caplog.clear()
    assert not len(titled.recommend(wish="7", deny=[7]))
    assert caplog.messages == ["no item that the list may hold has a word of the wish"]


def test_words_that_no_item_has_are_named_once(titled: EASE, caplog: pytest.LogCaptureFixture) -> None:
    titled.recommend([1, 2], wish="the unheard title 7")
    assert caplog.messages == ["no text of the items has these words of the wish: unheard"]


@pytest.mark.parametrize("wish", [np.zeros(3), np.zeros(1), np.full(10, np.nan), [0.0] * 9])
def test_scores_of_a_wish_are_one_number_an_item(wish: object, titled: EASE) -> None:
    dataset = numbered_dataset()
    with pytest.raises(ValueError, match=r"^`wish` is an array \(\d+,\): expected 10 finite scores"):
        titled.rank(np.array([0]), dataset, wish=wish)  # type: ignore[arg-type]
