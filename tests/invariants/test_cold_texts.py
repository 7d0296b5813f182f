"""Texts of users and items without training events reach no vocabulary, no document and no weight."""

from dataclasses import replace
from functools import cache

import polars as pl
import pytest

from cllm4rec.corpora.content import content_documents
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.fitted import fitted_buffers
from tests.support.planted import (
    COLD,
    assert_the_same_is_learned,
    learned,
    mentions,
    texts_for_the_vocabulary,
    texts_of_all_corpora,
    world,
    world_with,
)


@cache
def with_cold_texts() -> Dataset:
    return world_with(cold=COLD)


@cache
def without_cold_texts() -> Dataset:
    """The cold reader and the cold book have no texts at all."""
    dataset = world_with()
    users = dataset.users.with_columns(
        biography=pl.when(pl.col("user_id") == world().user_ids[0]).then(pl.lit("")).otherwise("biography")
    )
    blank = (
        pl.when(pl.col("item_id") == world().item_ids[0])
        .then(pl.lit(""))
        .otherwise(pl.exclude("item_id"))
        .name.keep()
    )
    return replace(dataset, users=users, items=dataset.items.with_columns(blank))


def test_the_cold_reader_and_the_cold_book_have_texts_and_no_training_events() -> None:
    dataset = with_cold_texts()
    user = dataset.user_ids.index(world().user_ids[:1])[0]
    item = dataset.item_ids.index(world().item_ids[:1])[0]
    assert user not in dataset.train.interactions.users
    assert item not in dataset.train.interactions.items
    assert user in dataset.interactions.users
    assert item in dataset.interactions.items
    assert [user] == [number for number, text in enumerate(dataset.user_texts["biography"]) if COLD in text]
    for texts in dataset.item_texts.values():
        assert [item] == [number for number, text in enumerate(texts) if COLD in text]


def test_texts_without_training_events_are_not_in_the_texts_of_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not mentions(texts_for_the_vocabulary(with_cold_texts(), monkeypatch), COLD)


def test_texts_without_training_events_are_in_no_document() -> None:
    dataset = with_cold_texts()
    tokenizer = learned(with_cold_texts)[0].tokenizer
    documents = content_documents(dataset.train, tokenizer)
    assert not mentions([tokenizer.decode(words) for *_, words in documents], COLD)
    of_users = {user for template, _, user, _, _ in documents if template == "user"}
    of_items = {item for template, _, _, item, _ in documents if template == "item"}
    assert of_users == set(dataset.train.interactions.users.tolist())
    assert of_items == set(dataset.train.interactions.items.tolist())


def test_texts_without_training_events_are_in_no_example_of_any_corpus() -> None:
    for objective, texts in texts_of_all_corpora(with_cold_texts()).items():
        assert texts
        assert not mentions(texts, COLD), objective


def test_texts_without_training_events_change_no_weight() -> None:
    """Such texts are kept beside the weights, for scoring."""
    texts = fitted_buffers(learned(with_cold_texts)[0].net)
    assert texts
    assert_the_same_is_learned(with_cold_texts, without_cold_texts, but_for=texts)
