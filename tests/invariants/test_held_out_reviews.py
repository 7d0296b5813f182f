"""Held-out reviews reach no vocabulary, no document and no weight."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cllm4rec import finetune, pretrain
from cllm4rec.corpora.content import content_documents
from cllm4rec.data.dataset import Dataset
from tests.support.planted import (
    STAGE_OBJECTIVES,
    WORDS,
    assert_bit_identical,
    assert_the_same_is_learned,
    held_out_emptied,
    learned,
    mentions,
    planted,
    texts_for_the_vocabulary,
    texts_of_all_corpora,
    world_with,
)


@cache
def with_planted_reviews() -> Dataset:
    return world_with(planted)


@cache
def with_empty_held_out_reviews() -> Dataset:
    return world_with(held_out_emptied)


def test_each_planted_word_is_in_all_reviews_of_its_part_only() -> None:
    dataset = with_planted_reviews()
    for name, word in WORDS.items():
        reviews = dataset.only(name).interactions.reviews.to_list()
        assert len(reviews) > 30
        assert mentions(reviews, word) == len(reviews)
        for other in set(WORDS) - {name}:
            assert not mentions(dataset.only(other).interactions.reviews.to_list(), word)
    emptied = with_empty_held_out_reviews()
    assert set(emptied.only("validation", "test").interactions.reviews) == {""}
    assert emptied.train.interactions.reviews.equals(dataset.train.interactions.reviews)
    assert emptied.fingerprint != dataset.fingerprint


def test_words_of_held_out_reviews_are_not_in_the_texts_of_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = texts_for_the_vocabulary(with_planted_reviews(), monkeypatch)
    assert mentions(texts, WORDS["train"]) == len(with_planted_reviews().train.interactions)
    assert not mentions(texts, WORDS["validation"])
    assert not mentions(texts, WORDS["test"])


def test_words_of_held_out_reviews_are_no_tokens() -> None:
    tokenizer = learned(with_planted_reviews)[0].tokenizer.text_tokenizer
    pieces = {name: tokenizer.tokenize(f" {word}") for name, word in WORDS.items()}
    assert len(pieces["train"]) == 1
    for name in ("validation", "test"):
        assert len(pieces[name]) > 3
        assert not any(WORDS[name][:6] in piece for piece in tokenizer.get_vocab())


def test_words_of_held_out_reviews_are_in_no_document() -> None:
    tokenizer = learned(with_planted_reviews)[0].tokenizer
    train = with_planted_reviews().train
    documents = content_documents(train, tokenizer)
    texts = [tokenizer.decode(words) for *_, words in documents]
    assert mentions(texts, WORDS["train"]) == len(train.interactions)
    assert not mentions(texts, WORDS["validation"])
    assert not mentions(texts, WORDS["test"])
    reviewed = [(user, item) for template, _, user, item, _ in documents if template == "review"]
    assert reviewed == list(
        zip(train.interactions.users.tolist(), train.interactions.items.tolist(), strict=True)
    )


def test_words_of_held_out_reviews_are_in_no_example_of_any_corpus() -> None:
    corpora = texts_of_all_corpora(with_planted_reviews())
    assert set(corpora) == {(stage, name) for stage, names in STAGE_OBJECTIVES.items() for name in names}
    for (stage, name), texts in corpora.items():
        assert (mentions(texts, WORDS["train"]) > 0) == (name == "content"), stage
        assert not mentions(texts, WORDS["validation"]), (stage, name)
        assert not mentions(texts, WORDS["test"]), (stage, name)


@pytest.mark.parametrize("validated", [False, True])
def test_held_out_reviews_change_no_weight(validated: bool) -> None:
    assert_the_same_is_learned(with_planted_reviews, with_empty_held_out_reviews, validated)


def test_training_reviews_do_change_the_weights() -> None:
    """Otherwise the equalities of this file would prove nothing."""
    weights = learned(with_planted_reviews)[1], learned(world_with)[1]
    assert not np.array_equal(*(arrays["pretrain content.items.weight"] for arrays in weights))
    assert not np.array_equal(*(arrays["finetune collaborative.items.weight"] for arrays in weights))


def test_held_out_reviews_change_no_file_that_the_commands_write(tmp_path: Path) -> None:
    for name, dataset in (("planted", with_planted_reviews()), ("emptied", with_empty_held_out_reviews())):
        dataset.save(tmp_path / name)
        quick = ["--epochs", "1", "--batch-size", "16"]
        pretrain.main(["--dataset", str(tmp_path / name), "--output", str(tmp_path / f"{name} run"), *quick])
        finetune.main(["--run", str(tmp_path / f"{name} run"), *quick])
    for stage in STAGE_OBJECTIVES:
        files = [tmp_path / f"{name} run" / stage for name in ("planted", "emptied")]
        assert_bit_identical(*(load_file(file / "model.safetensors") for file in files))
        vocabularies = [(file / "backbone" / "tokenizer.json").read_text() for file in files]
        assert vocabularies[0] == vocabularies[1]
        assert WORDS["train"] in vocabularies[0]
