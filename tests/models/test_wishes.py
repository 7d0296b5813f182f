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
    assert "names no dataset" in refused(lambda: again.recommend(wish="told"))
    lists = load(tmp_path / "model", dataset).recommend(wish="told", k=100)
    assert sorted(lists["item_id"]) == sorted(trained)


def test_items_without_texts_take_no_wish() -> None:
    ease = EASE(EASEConfig(regularization=10.0)).fit(numbered_dataset())
    assert "the items have no texts: leave `wish` out" in refused(lambda: ease.recommend([0], wish="a"))
