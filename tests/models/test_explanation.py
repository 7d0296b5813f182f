"""Explanations against scores of each reduced history and text, one by one."""

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec import EASE, Bag, CLLM4Rec, Dataset, EASEConfig, SASRec, TrainConfig, load
from cllm4rec.models import explanation as module
from cllm4rec.models.base import Recommender
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from tests.support.worlds import taste_dataset


def titled_dataset() -> Dataset:
    """The world of tastes, with words in the titles that three items or more have."""
    dataset = taste_dataset()
    ids = dataset.item_ids.ids
    titles = [
        f"tale{number % 4} of{number % 3} {'' if number % 5 else 'night'}" for number in range(len(ids))
    ]
    items = pl.DataFrame({"item_id": ids, "title": titles})
    users, numbers = dataset.interactions.users, dataset.interactions.items
    events = {"user_id": dataset.user_ids.names(users), "item_id": dataset.item_ids.names(numbers)}
    return Dataset.from_frame(pl.DataFrame(events), items, split="random")


DATASET = titled_dataset()
TRAINING = TrainConfig(epochs=2, patience=2)


@pytest.fixture(scope="module", params=["cllm4rec", "bag", "sasrec", "ease"])
def model(request: pytest.FixtureRequest) -> Recommender:
    """Systems with words and a linear path, with words, with an order, and without a network."""
    if request.param == "cllm4rec":
        return CLLM4Rec(CLLM4RecConfig(backbone="1x64")).fit(DATASET, TRAINING)
    if request.param == "ease":
        return EASE(EASEConfig(regularization=10.0)).fit(DATASET)
    return {"bag": Bag, "sasrec": SASRec}[request.param]().fit(DATASET, TRAINING)


def history_of(length: int = 5) -> list[str]:
    return DATASET.item_ids.ids.head(length).to_list()


def score_of(model: Recommender, history: list[str], item: str) -> float:
    """The score of an item in the list of a history."""
    lists = model.recommend(histories=[history], k=DATASET.n_items)
    return float(lists.filter(pl.col("item_id").cast(pl.String) == str(item))["score"][0])


@pytest.mark.parametrize("scores_at_once", [1, 1 << 24])
def test_effects_of_items_are_differences_of_scores(
    model: Recommender, scores_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCORES_AT_ONCE", scores_at_once)
    history, item = history_of(), DATASET.item_ids.ids[20]
    found = model.explain(None, item, history=history)
    full = score_of(model, history, item)
    assert found.score == pytest.approx(full, rel=1e-5)
    assert sorted(found.items["item_id"]) == sorted(history)
    assert found.items["effect"].is_sorted(descending=True)
    assert found.items["effect"].abs().max() > 0
    for left_out, effect, title in found.items.select("item_id", "effect", "title").iter_rows():
        rest = [each for each in history if each != left_out]
        assert effect == pytest.approx(full - score_of(model, rest, item), rel=1e-4, abs=1e-5)
        assert title == DATASET.items.filter(pl.col("item_id") == left_out)["title"][0]
    lists = model.recommend(histories=[history], k=DATASET.n_items)
    assert found.rank == lists.filter(pl.col("item_id") == item)["rank"][0]


def test_effects_of_words_are_differences_of_scores(model: Recommender) -> None:
    """The item's bag of words is replaced by one without the word and the bigrams that have it."""
    history, item = history_of(), DATASET.item_ids.ids[20]
    words = model.explain(None, item, history=history).words
    if model.name not in ("cllm4rec", "bag"):  # SASRec has no texts by default
        assert words.schema == {"word": pl.String, "effect": pl.Float64}
        assert not len(words)
        return
    title = DATASET.items.filter(pl.col("item_id") == item)["title"][0].split()
    assert set(words["word"]) == set(title)
    assert words["effect"].is_sorted(descending=True)
    full, text = score_of(model, history, item), model.net.item_text
    row = DATASET.item_ids.index([item])[0]
    start, end = text.starts[row], text.starts[row + 1]
    kept = text.weights[start:end].clone()
    parts = [text.word_list[column].split(" ") for column in text.columns[start:end].tolist()]
    assert max(map(len, parts)) == 2, "the title has a bigram"
    for word, effect in words.iter_rows():
        stays = torch.tensor([word not in part for part in parts])
        text.weights[start:end] = stays / stays.sum() ** 0.5
        text._latest.free()
        without = score_of(model, history, item)
        assert effect == pytest.approx(full - without, rel=1e-3, abs=1e-5)
    text.weights[start:end] = kept
    text._latest.free()


def test_users_of_the_dataset_are_explained_by_all_of_their_events(model: Recommender) -> None:
    user = DATASET.user_ids.ids[3]
    item = model.recommend([user], k=3)["item_id"][2]
    found = model.explain(user, item)
    assert found.rank == 3
    history = DATASET.item_ids.names(DATASET.interactions.history(3)).to_list()
    assert sorted(found.items["item_id"]) == sorted(history)
    listed = model.recommend([user], k=3)["score"][2]
    assert found.score == pytest.approx(listed, rel=1e-5)


def test_a_saved_model_explains_as_before(
    model: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model") / model.name
    model.save(folder)
    history, item = history_of(), DATASET.item_ids.ids[20]
    found, again = (each.explain(None, item, history=history) for each in (model, load(folder)))
    assert found.words.equals(again.words)
    assert found.items["item_id"].equals(again.items["item_id"])
    np.testing.assert_allclose(found.items["effect"], again.items["effect"], rtol=1e-5)


def test_the_only_item_of_a_new_user_has_no_effect_that_could_be_computed(model: Recommender) -> None:
    found = model.explain(None, DATASET.item_ids.ids[20], history=history_of(1))
    assert found.items["effect"].to_list() == [None]


def test_what_cannot_be_explained_is_refused(model: Recommender) -> None:
    history, item = history_of(), DATASET.item_ids.ids[20]
    for arguments, line in (
        ((None, item), "give either a `user`"),
        ((DATASET.user_ids.ids[0], item, history), "give either a `user`"),
        (("nobody", item), "user 'nobody' is not in the data"),
        ((None, "nothing", history), "item 'nothing' is not in the data"),
        (
            (None, history[1], history),
            f"`item`: '{history[1]}' is in the history: ask about an item that is not",
        ),
        ((None, item, []), "`history` is empty: there is nothing to explain from"),
        ((None, item, ["nothing"]), "item 'nothing' of the histories is none of the model's items"),
    ):
        user, asked, *given = arguments
        with pytest.raises(ValueError, match=f"^{line}"):
            model.explain(user, asked, history=given[0] if given else None)
