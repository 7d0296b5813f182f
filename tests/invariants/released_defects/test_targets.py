"""Defects 1 to 3 of CLLM4Rec's released code do not occur: regulariser and masked targets."""

import numpy as np
import pytest
import torch

from cllm4rec.corpora.histories import HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.data.interactions import Interactions
from tests.support.released_defects import (
    by_row,
    histories,
    items_of,
    recommendation_corpus,
    small_dataset,
    trained_model,
)


# 1: the regulariser of finetuning encoded the text "item_tensor(0)" and touched no item
def test_finetuning_regulariser_touches_the_items_of_the_prompt() -> None:
    net, n_users = trained_model().net, small_dataset().n_users
    corpus = recommendation_corpus(user_dropping=0.0)
    batch = corpus.batch(np.arange(5), epoch=0)
    table = net.collaborative.whole()
    difference = torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    kept = net.content.whole()
    try:
        net.content.fill(table + difference)
        net.zero_grad()
        net("recommend", batch)["mutual"].backward()
        users, items = (side.weight.grad for side in (net.collaborative.users, net.collaborative.items))
        gradient = torch.cat([users.to_dense(), items])
        pulled = gradient.abs().sum(1) > 0
        expected = torch.zeros(len(table))
        expected.index_add_(0, batch.ids, batch.id_weights)
        torch.testing.assert_close(gradient, -difference * expected[:, None], rtol=1e-4, atol=1e-6)
    finally:
        net.content.fill(kept)
        net.zero_grad()
    in_prompt = {n_users + item for item in items_of(batch.tokens[batch.mask])}
    users = set(corpus.users[:5].tolist())
    assert len(in_prompt) > 5
    assert set(torch.nonzero(pulled).flatten().tolist()) == in_prompt | users


# 2: the targets were all items of the history though the masked ones were meant
@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize("targets", ["unseen", "masked"])
def test_targets_are_the_masked_items_only(order: str, targets: str) -> None:
    corpus = recommendation_corpus(order=order, targets=targets, mask_share=0.3)
    examples = corpus.selection(0)
    batch = corpus.batch(examples, epoch=0)
    targeted = by_row(batch.target_rows, batch.target_items, len(examples))
    left_out: list[list[int]] = [[] for _ in examples]
    assert (batch.excluded is not None) == (targets == "unseen")
    if batch.excluded is not None:
        left_out = by_row(batch.excluded.rows, batch.excluded.items, len(examples))
    for row, history in enumerate(histories(corpus, examples)):
        shown = items_of(batch.tokens[row][batch.mask[row]])
        assert shown
        assert targeted[row]
        assert not set(shown) & set(targeted[row])
        assert sorted(shown + targeted[row]) == sorted(history)
        assert left_out[row] == (shown if targets == "unseen" else [])


def test_all_items_are_targets_only_if_asked_for() -> None:
    corpus = recommendation_corpus(targets="all")
    examples = np.arange(10)
    batch = corpus.batch(examples, epoch=0)
    targeted = by_row(batch.target_rows, batch.target_items, 10)
    assert [sorted(items) for items in targeted] == [sorted(items) for items in histories(corpus, examples)]


def test_a_user_with_one_training_item_learns_from_the_user_token_alone() -> None:
    train = Interactions(
        np.array([0, 1, 1]), np.array([4, 5, 6]), small_dataset().n_users, small_dataset().n_items
    )
    corpus = RecommendationCorpus(
        train, trained_model().tokenizer, HistoryCorpusOptions(1024, user_dropping=1.0)
    )
    batch = corpus.batch(np.array([0, 1]), epoch=0)
    assert items_of(batch.tokens[0]) == []
    assert (batch.tokens[0] == trained_model().tokenizer.user(0)).any()
    assert by_row(batch.target_rows, batch.target_items, 2)[0] == [4]
    assert len(items_of(batch.tokens[1])) == 1


# 3: the masking ratio was ignored
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_masking_ratio_is_respected(share: float) -> None:
    corpus = recommendation_corpus(mask_share=share)
    examples = corpus.selection(1)
    batch = corpus.batch(examples, epoch=1)
    masked = by_row(batch.target_rows, batch.target_items, len(examples))
    for history, hidden in zip(histories(corpus, examples), masked, strict=True):
        n = len(history)
        assert abs(len(hidden) - share * n) <= 0.5 + 1e-9 or len(hidden) in (1, n - 1)
        assert 1 <= len(hidden) <= max(1, n - 1)


def test_masked_items_are_drawn_anew_each_epoch() -> None:
    corpus = recommendation_corpus(mask_share=0.5)
    examples = np.arange(20)
    drawn = [corpus.batch(examples, epoch) for epoch in (0, 1, 0)]
    hidden = [
        [sorted(items) for items in by_row(batch.target_rows, batch.target_items, 20)] for batch in drawn
    ]
    assert sum(a != b for a, b in zip(hidden[0], hidden[1], strict=True)) > 15
    assert hidden[0] == hidden[2]
