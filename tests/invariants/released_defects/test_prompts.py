"""Defects 4, 5, 7 and 11 of CLLM4Rec's released code do not occur: truncation, order, padding, first item."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.corpora.content import ContentCorpus, content_documents
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions
from cllm4rec.corpora.history_batches import HistoryPrompts
from cllm4rec.corpora.prompts import Template
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language import backbone
from tests.support.released_defects import (
    histories,
    items_of,
    recommendation_corpus,
    small_dataset,
    trained_model,
)
from tests.support.systems import QUICK


# 4: truncation removed the query
def query_tokens(name: str = "recommend") -> list[int]:
    """Tokens of the template after its history; -1 is the user token."""
    template = Template.compile(name, trained_model().tokenizer)
    behind = template.pieces[template.history + 1 :]
    return [token for piece in behind for token in ([-1] if isinstance(piece, str) else piece.tolist())]


@pytest.mark.parametrize("order", ["random", "time"])
def test_truncation_keeps_the_query(order: str) -> None:
    words, n_text_tokens = (
        [token for token in query_tokens() if token >= 0],
        trained_model().tokenizer.n_text_tokens,
    )
    fixed = Template.compile("recommend", trained_model().tokenizer).n_fixed
    corpus = recommendation_corpus(order=order, context=fixed + 3, mask_share=0.1)
    examples = corpus.selection(0)
    batch = corpus.batch(examples, epoch=0)
    assert max(len(history) for history in histories(corpus, examples)) > 10
    for row, history in enumerate(histories(corpus, examples)):
        tokens = batch.tokens[row][batch.mask[row]]
        query = [token for token in tokens.tolist()[-len(query_tokens()) :] if token < n_text_tokens]
        assert len(tokens) <= fixed + 3
        assert query[-len(words) :] == words
        shown = items_of(tokens)
        assert len(shown) <= 3
        if order == "time" and len(history) > 12:
            n_masked = int((batch.target_rows == row).sum())
            assert shown == history[: len(history) - n_masked][-3:], "the oldest items are left out"


def read_in_scoring(model: CLLM4Rec, room: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The tokens of all users' prompts, in a context with room for a few items."""
    dataset, net = small_dataset(), model.net
    fixed = Template.compile(model.config.list_template, model.tokenizer).n_fixed
    read: list[list[int]] = []
    original: Callable[..., Tensor] = net.user_states

    def noted(batch: HistoryPrompts, *settings: Any) -> Tensor:
        read.extend(tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.mask, strict=True))
        return original(batch, *settings)

    monkeypatch.setattr(backbone, "CONTEXT", fixed + room)
    monkeypatch.setattr(net, "user_states", noted)
    users = np.arange(dataset.n_users)
    assert np.isfinite(model.score(users, dataset.train)).all()
    assert len(read) == dataset.n_users
    assert all(len(tokens) <= fixed + room for tokens in read)
    return read


def test_truncation_keeps_the_query_when_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset()
    model = CLLM4Rec(CLLM4RecConfig(user_token="both", attention="causal")).fit(dataset, QUICK)
    for tokens in read_in_scoring(model, 4, monkeypatch):
        user = tokens[0] - model.tokenizer.n_text_tokens
        expected = [model.tokenizer.user(user) if token == -1 else token for token in query_tokens()]
        assert tokens[-len(expected) :] == expected
        assert items_of(torch.tensor(tokens)) == dataset.train.interactions.history(user)[-4:].tolist(), (
            "the newest items are kept"
        )


def test_truncation_keeps_the_newest_items_of_a_prompt_of_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    train = small_dataset().train.interactions
    read = [items_of(torch.tensor(tokens)) for tokens in read_in_scoring(trained_model(), 4, monkeypatch)]
    newest = [train.history(user)[-4:].tolist() for user in range(train.n_users)]
    assert sorted(read) == sorted(newest)


# 5: no reordering and no shuffling in pretraining
def test_items_are_reordered_and_examples_shuffled_in_pretraining() -> None:
    objectives = {
        objective.name: objective
        for objective in trained_model().objectives(small_dataset().train, "pretrain", QUICK)
    }
    corpus = objectives["collaborative"].corpus
    assert isinstance(corpus, CollaborativeCorpus)
    selections = [corpus.selection(epoch) for epoch in range(3)]
    for order, next_order in zip(selections, selections[1:], strict=False):
        assert not np.array_equal(order, next_order)
        assert not np.array_equal(order, np.arange(len(order)))
        np.testing.assert_array_equal(np.sort(order), np.arange(len(corpus.users)))
    examples = np.arange(len(corpus.users))
    texts = []
    for epoch in (0, 1):
        batch = corpus.batch(examples, epoch)
        texts.append([items_of(batch.tokens[row][batch.mask[row]]) for row in range(len(examples))])
    moved, ascending = 0, 0
    for items, next_items, history in zip(*texts, histories(corpus, examples), strict=True):
        assert sorted(items) == sorted(next_items) == sorted(history)
        moved += items != next_items
        ascending += items == sorted(items)
    assert moved > 0.9 * len(examples)
    assert ascending < 0.1 * len(examples)


def test_documents_are_shuffled_in_content_passes() -> None:
    documents = content_documents(small_dataset().train, trained_model().tokenizer)
    corpus = ContentCorpus(
        documents, trained_model().tokenizer, HistoryCorpusOptions(1024), tokens_per_pass=10**9
    )
    order, next_order = corpus.selection(0), corpus.selection(1)
    assert not np.array_equal(order, next_order)
    np.testing.assert_array_equal(np.sort(order), np.sort(next_order))


def test_the_order_of_an_example_depends_on_seed_and_epoch_not_on_its_batch() -> None:
    corpus = recommendation_corpus(user_dropping=0.3)
    together = corpus.batch(np.arange(12), epoch=4)
    for example in range(12):
        alone = corpus.batch(np.array([example]), epoch=4)
        tokens = together.tokens[example][together.mask[example]]
        assert tokens.tolist() == alone.tokens[0].tolist()
    other_seed = recommendation_corpus(user_dropping=0.3, seed=1).batch(np.arange(12), epoch=4)
    assert other_seed.tokens.tolist() != together.tokens.tolist()


# 7: the pad id is the id of a word and must change nothing
@pytest.mark.parametrize("finetuned", [False, True], ids=["pretraining", "finetuning"])
def test_padding_token_changes_nothing(finetuned: bool) -> None:
    net = trained_model().net
    corpus = recommendation_corpus()
    batch = corpus.batch(np.arange(8), epoch=0)
    assert not batch.mask.all(), "examples of unequal length"
    states = net.user_states(batch, finetuned).detach()
    for filler in (1, net.backbone.n_text_tokens - 1, net.backbone.n_text_tokens + 5):
        other = replace(batch, tokens=batch.tokens.masked_fill(~batch.mask, filler))
        torch.testing.assert_close(net.user_states(other, finetuned).detach(), states, rtol=1e-6, atol=1e-6)


def test_padding_token_gets_no_gradient() -> None:
    net = trained_model().net
    net.zero_grad()
    batch = recommendation_corpus(user_dropping=0.0).batch(np.arange(8), epoch=0)
    net("recommend", batch)["recommend"].backward()
    words = net.backbone.token_embeddings.grad.abs().sum(1)
    net.zero_grad()
    in_prompts = set(batch.tokens[batch.mask].unique().tolist())
    assert 0 not in in_prompts
    assert (~batch.mask).any()
    assert batch.tokens[~batch.mask].unique().tolist() == [0]
    assert set(torch.nonzero(words).flatten().tolist()) <= in_prompts


# 11: the first item of every main text was never predicted
@pytest.mark.parametrize("user_dropping", [0.0, 1.0])
def test_first_item_of_every_main_text_is_predicted(user_dropping: float) -> None:
    options = HistoryCorpusOptions(1024, user_dropping=user_dropping)
    corpus = CollaborativeCorpus(small_dataset().train.interactions, trained_model().tokenizer, options)
    examples = corpus.selection(0)
    batch = corpus.batch(examples, epoch=0)
    width = batch.tokens.shape[1]
    template = Template.compile("collaborative", trained_model().tokenizer)
    last_word = int(template.pieces[template.history - 1][-1])
    for row, history in enumerate(histories(corpus, examples)):
        in_row = batch.state_index // width == row
        predicted = batch.target_items[in_row]
        items = items_of(batch.tokens[row][batch.mask[row]])
        assert predicted.tolist() == items
        assert sorted(items) == sorted(history)
        first = int(batch.state_index[in_row][0]) % width
        assert batch.tokens[row, first] == last_word, "the first item is predicted from the prompt's end"
        assert items_of(batch.tokens[row, first + 1 : first + 2]) == items[:1]


@pytest.mark.parametrize("user_dropping", [0.0, 1.0])
def test_first_word_and_the_end_of_every_text_are_predicted(user_dropping: float) -> None:
    tokenizer = trained_model().tokenizer
    documents = content_documents(small_dataset().train, tokenizer)
    corpus = ContentCorpus(
        documents, tokenizer, HistoryCorpusOptions(1024, user_dropping=user_dropping), 10**9
    )
    examples = corpus.selection(0)[:64]
    batch = corpus.batch(examples, epoch=0)
    width = batch.tokens.shape[1]
    assert {documents[example][0] for example in examples} == {"item", "review"}
    for row, example in enumerate(examples):
        template, field, _, _, words = documents[example]
        in_row = batch.state_index // width == row
        assert batch.target_tokens[in_row].tolist() == [*words.tolist(), *tokenizer.document.end]
        first = int(batch.state_index[in_row][0]) % width
        last_word = Template.compile(template, tokenizer, field).pieces[-1][-1]
        assert batch.tokens[row, first] == int(last_word)
        assert batch.tokens[row, first + 1] == words[0]
