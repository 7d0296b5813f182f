"""Prompts compile to the tokens of their text, and the vocabulary is learned from training texts alone."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.corpora.content import content_documents
from cllm4rec.corpora.history_batches import fill, prompt_batch
from cllm4rec.corpora.prompts import OF_CLLM4REC, TEMPLATES, Template, training_texts
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.synthetic import taste_world


def filled(
    template: Template, tokenizer: ExtendedTokenizer, user: int, item: int, history: list[int]
) -> list[int]:
    """A compiled template filled in by hand."""
    tokens: list[int] = []
    for piece in template.pieces:
        values = {
            "user": [tokenizer.user(user)],
            "item": [tokenizer.item(item)],
            "candidates": [tokenizer.item(item)],
            "history": [*map(tokenizer.item, history)],
        }
        tokens += values[piece] if isinstance(piece, str) else piece.tolist()
    return tokens


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_compile_to_what_encoding_the_written_text_gives(
    tokenizer: ExtendedTokenizer, name: str
) -> None:
    for field in ("title", "description") if "{field}" in TEMPLATES[name] else ("",):
        items = {"item": "item_7", "history": "item_1 item_2 item_19", "candidates": "item_7"}
        written = TEMPLATES[name].format(user="user_3", field=field, **items)
        template = Template.compile(name, tokenizer, field)
        tokens = filled(template, tokenizer, 3, 7, [1, 2, 19])
        assert tokens == [*tokenizer.document.begin, *tokenizer.encode(written)]
        assert template.n_fixed == len(tokens) - (3 if "{history}" in TEMPLATES[name] else 0)


def test_a_prompt_and_its_text_are_what_encoding_both_together_gives(tokenizer: ExtendedTokenizer) -> None:
    prompt, text = "item_4 has the following title:", "a history of the river"
    ids = tokenizer.encode(prompt) + tokenizer.encode_texts([text])[0].tolist()
    assert ids == tokenizer.encode(f"{prompt} {text}")


def test_a_prompt_for_scoring_is_the_written_text(bpe: ExtendedTokenizer) -> None:
    template = Template.compile("recommend", bpe)
    items = Ragged.from_lists([np.array([3, 5]), np.array([], dtype=np.int64), np.array([9])])
    batch = prompt_batch(bpe, *fill(template, bpe, np.array([4, 6, 8]), items, np.array([True, True, False])))
    tokens = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    assert tokens[0] == bpe.encode("user_4 has interacted with item_3 item_5, user_4 will interact with")
    assert tokens[1] == bpe.encode("user_6 has interacted with, user_6 will interact with")
    with_user = bpe.encode("user_8 has interacted with item_9, user_8 will interact with")
    assert tokens[2] == [token for token in with_user if token != bpe.user(8)]


def test_a_vocabulary_is_learned_from_templates_texts_and_training_reviews() -> None:
    columns = {"title": ["One", ""], "brand": ["B"], "biography": ["tea"]}
    texts = training_texts(OF_CLLM4REC, columns, ["fine"])
    assert {"One", "B", "tea", "fine"} <= set(texts)
    assert "" not in texts
    assert any("interacted with" in text for text in texts)
    assert all("{" not in text for text in texts)
    for field in ("title", "brand", "biography"):
        assert f" has the following {field}:" in texts


def test_neither_vocabulary_nor_documents_see_a_held_out_review(bpe: ExtendedTokenizer) -> None:
    world = taste_world(3, n_users=60, n_items=90, n_events=10)
    events = world.events.with_columns(review_text=pl.format("{}/{}", "user_id", "item_id"))
    dataset = Dataset.from_frame(events, world.items, split="random")
    reviews = {part: set(dataset.only(part).interactions.reviews) for part in ("train", "validation", "test")}
    train = dataset.train
    columns = train.item_texts | train.user_texts
    texts = training_texts(OF_CLLM4REC, columns, train.interactions.reviews.to_list())
    assert reviews["train"] <= set(texts)
    assert not (reviews["validation"] | reviews["test"]) & set(texts)
    read = {
        bpe.text_tokenizer.decode(words).strip()
        for kind, *_, words in content_documents(train, bpe)
        if kind == "review"
    }
    assert read == reviews["train"]
