"""What all corpora promise: weights of IDs, and examples that depend on their epoch and seed alone."""

from typing import Any

import numpy as np
import pytest
import torch

from cllm4rec.corpora import training_histories as histories_module
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from tests.support.histories import KINDS, corpora, examples_of, histories, named_tensors, whole_epoch
from tests.support.tokenizers import load_tokenizer


def test_the_batch_in_the_docstring_of_the_collaborative_batch() -> None:
    """Two users with the items {5, 3} and {7}, a prompt of three words."""
    words = load_tokenizer("bpe")
    tokenizer = ExtendedTokenizer(words, 1000, 50, 60)
    three = tokenizer.encode_words(" has interacted with", after_id=True)
    assert len(three) == 3
    corpus = CollaborativeCorpus(
        histories([[5, 3], [7]], n_items=60), tokenizer, HistoryCorpusOptions(context=20)
    )
    tokenizer_user, tokenizer_item = tokenizer.user, tokenizer.item
    epoch = next(
        e for e in range(100) if corpus.batch(np.array([0, 1]), e).target_items.tolist() == [3, 5, 7]
    )
    batch = corpus.batch(np.array([0, 1]), epoch)
    assert batch.tokens.tolist() == [
        [tokenizer_user(0), *three, tokenizer_item(3), tokenizer_item(5)],
        [tokenizer_user(1), *three, tokenizer_item(7), 0],
    ]
    assert batch.mask.tolist() == [[True] * 6, [True] * 5 + [False]]
    assert batch.state_index.tolist() == [3, 4, 9]
    assert batch.target_items.tolist() == [3, 5, 7]
    assert sorted(batch.ids.tolist()) == [0, 1, 50 + 3, 50 + 5, 50 + 7]
    assert batch.id_weights.tolist() == [1.0] * 5


def test_an_id_that_occurs_twice_in_an_epoch_weighs_half_each_time(bpe: ExtendedTokenizer) -> None:
    corpus = CollaborativeCorpus(histories([[5, 3], [3]]), bpe, HistoryCorpusOptions(context=20))
    batch = corpus.batch(np.array([0, 1]), 0)
    weights = dict(zip(batch.ids.tolist(), batch.id_weights.tolist(), strict=True))
    assert weights == {0: 1.0, 1: 1.0, bpe.n_users + 5: 1.0, bpe.n_users + 3: 0.5}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"user_dropping": 0.5}, {"order": "time", "context": 24}])
@pytest.mark.parametrize("size", [1, 13, 1000])
def test_weights_sum_over_an_epoch_to_the_number_of_ids_that_occur(
    bpe: ExtendedTokenizer, kind: str, options: dict[str, Any], size: int
) -> None:
    corpus = corpora(bpe, **options)[kind]
    for epoch in (0, 1, 0):
        total = np.zeros(bpe.n_users + bpe.n_items)
        occurring = set()
        for batch in whole_epoch(corpus, epoch, size):
            np.add.at(total, batch.ids.numpy(), batch.id_weights.numpy())
            tokens = batch.tokens[batch.mask].numpy()
            occurring |= set((tokens[tokens >= bpe.n_text_tokens] - bpe.n_text_tokens).tolist())
        np.testing.assert_allclose(total[sorted(occurring)], 1.0, rtol=1e-6)
        assert total.sum() == pytest.approx(len(occurring), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("together", [1, 3, 64])
def test_batches_computed_together_equal_each_batch_alone(
    bpe: ExtendedTokenizer, kind: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories_module, "TOKENS_PER_CHUNK", together)
    corpus = corpora(bpe, user_dropping=0.3)[kind]
    order = corpus.selection(2)
    groups = [order[start : start + 4] for start in range(0, len(order), 4)]
    batches = corpus.batches(groups, 2, range(len(groups)))
    for batch, group in zip(batches, groups, strict=True):
        alone = corpus.batch(group, 2)
        tensors, tensors_alone = named_tensors(batch), named_tensors(alone)
        assert tensors.keys() == tensors_alone.keys()
        assert all(torch.equal(tensors[name], tensors_alone[name]) for name in tensors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["random", "time"])
def test_an_example_is_the_same_in_every_batch(bpe: ExtendedTokenizer, kind: str, order: str) -> None:
    corpus = corpora(bpe, user_dropping=0.3, order=order)[kind]
    for epoch in (0, 3):
        chosen = corpus.selection(epoch)
        together = examples_of(corpus.batch(chosen, epoch), bpe)
        alone = [examples_of(corpus.batch(chosen[i : i + 1], epoch), bpe)[0] for i in range(len(chosen))]
        backwards = examples_of(corpus.batch(chosen[::-1], epoch), bpe)[::-1]
        assert together == alone == backwards


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_visits_every_example_once_in_an_order_of_its_own(bpe: ExtendedTokenizer, kind: str) -> None:
    corpus = corpora(bpe)[kind]
    orders = [corpus.selection(epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(len(corpus.lengths))) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == corpora(bpe)[kind].selection(0).tolist()


def test_corpora_draw_different_random_numbers(bpe: ExtendedTokenizer) -> None:
    """Otherwise finetuning would always show the items that pretraining predicted first."""
    both = corpora(bpe)
    assert both["collaborative"].selection(0).tolist() != both["recommendation"].selection(0).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dropping", "low", "high"), [(0.0, 0.0, 0.0), (0.3, 0.22, 0.38), (1.0, 0.85, 1.0)])
def test_user_tokens_are_dropped_in_the_share_asked_for(
    bpe: ExtendedTokenizer, kind: str, dropping: float, low: float, high: float
) -> None:
    corpus = corpora(bpe, user_dropping=dropping)[kind]
    without = total = 0
    for epoch in range(12):
        batch = corpus.batch(corpus.selection(epoch), epoch)
        if kind == "content":
            about_user = corpus.users[corpus.selection(epoch)] >= 0
        else:
            about_user = np.ones(len(batch.tokens), dtype=bool)
        is_user = (batch.tokens >= bpe.user(0)) & (batch.tokens < bpe.item(0))
        has_user = (is_user & batch.mask).any(1).numpy()
        assert not has_user[~about_user].any()
        without += int((~has_user[about_user]).sum())
        total += int(about_user.sum())
    assert low <= without / total <= high
