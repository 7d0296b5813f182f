"""Histories as sets: what is input, predicted and left out of the softmax."""

from typing import Any

import numpy as np
import pytest
import torch

from cllm4rec.corpora.history_sets import HistorySetBatch, HistorySetCorpus, HistorySetOptions
from tests.support.histories import histories, named_tensors, random_histories


def corpus_of(**options: Any) -> HistorySetCorpus:
    return HistorySetCorpus(random_histories(), HistorySetOptions(**options))


def sets_of(batch: HistorySetBatch) -> list[tuple[list[int], list[int]]]:
    """Input items and targets of each example."""
    n = len(batch.lengths)
    return [
        (
            batch.items[batch.item_rows == row].tolist(),
            batch.target_items[batch.target_rows == row].tolist(),
        )
        for row in range(n)
    ]


def test_the_example_of_the_batch() -> None:
    """Users with the items {5, 3, 4} and {7, 2}: the last of each is masked."""
    train = histories([[5, 3, 4], [7, 2]])
    options = HistorySetOptions(mask_share=1e-9, targets="unseen", order="time")
    batch = HistorySetCorpus(train, options).batch(np.array([0, 1]), 0)
    assert batch.items.tolist() == [5, 3, 7]
    assert batch.item_rows.tolist() == [0, 0, 1]
    assert batch.lengths.tolist() == [2, 1]
    assert batch.mask.tolist() == [[True], [True]]
    assert (batch.target_rows.tolist(), batch.target_items.tolist()) == ([0, 1], [4, 2])
    assert batch.excluded is not None
    assert (batch.excluded.rows.tolist(), batch.excluded.items.tolist()) == ([0, 0, 1], [5, 3, 7])
    assert (batch.n_targets, batch.n_tokens) == (2, 2)


def test_without_masking_whole_histories_are_input_and_targets() -> None:
    train, corpus = random_histories(), corpus_of()
    assert corpus.users.tolist() == np.flatnonzero(np.diff(train.indptr)).tolist()
    for epoch in (0, 5):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        assert batch.excluded is None
        for user, (shown, targets) in zip(corpus.users, sets_of(batch), strict=True):
            assert shown == targets == train.history(user).tolist()


def test_an_epoch_visits_each_history_once_in_each_pass() -> None:
    corpus = corpus_of(passes=3)
    n = len(corpus.users)
    passes = corpus.selection(2).reshape(3, n)
    assert all(sorted(examples) == list(range(n)) for examples in passes.tolist())
    assert len({*map(tuple, passes.tolist())}) == 3
    assert corpus.selection(2).tolist() != corpus.selection(3).tolist()
    assert corpus.selection(2).tolist() == corpus_of(passes=3).selection(2).tolist()
    assert corpus.selection(2).tolist() != corpus_of(passes=3, seed=1).selection(2).tolist()


@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize("targets", ["unseen", "masked", "all"])
def test_a_history_is_divided_into_input_and_masked_items(targets: str, order: str) -> None:
    train, corpus = random_histories(), corpus_of(mask_share=0.3, targets=targets, order=order)
    assert corpus.users.tolist() == np.flatnonzero(np.diff(train.indptr) > 1).tolist()
    for epoch in (0, 1):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        for user, (shown, predicted) in zip(corpus.users, sets_of(batch), strict=True):
            items = train.history(user).tolist()
            masked = [item for item in predicted if item not in shown]
            assert sorted(shown + masked) == sorted(items)
            assert 1 <= len(masked) <= max(1, round(0.3 * len(items)))
            if order == "time":
                assert shown == items[: len(shown)]
            else:
                assert len(masked) == max(1, round(0.3 * len(items)))
            assert sorted(predicted) == sorted(items if targets == "all" else masked)
        if targets == "unseen":
            assert batch.excluded is not None
            assert torch.equal(batch.excluded.items, batch.items)
            assert torch.equal(batch.excluded.rows, batch.item_rows)
        else:
            assert batch.excluded is None


def test_an_example_is_the_same_in_every_batch_and_another_in_every_epoch() -> None:
    corpus = corpus_of(mask_share=0.5, targets="unseen")
    chosen = corpus.selection(3)
    together = {epoch: sets_of(corpus.batch(chosen, epoch)) for epoch in (3, 4, 3)}
    alone = [sets_of(corpus_of(mask_share=0.5, targets="masked").batch(chosen[i : i + 1], 3)) for i in (0, 7)]
    assert [together[3][0]] == alone[0]
    assert [together[3][7]] == alone[1]
    changed = [
        sorted(a) != sorted(b) for (a, _), (b, _) in zip(together[3], together[4], strict=True) if len(a) > 4
    ]
    assert np.mean(changed) > 0.95


def test_every_item_is_masked_equally_often() -> None:
    corpus = HistorySetCorpus(histories([[1, 2, 3]]), HistorySetOptions(mask_share=0.3, targets="masked"))
    masked = [int(corpus.batch(np.array([0]), epoch).target_items[0]) for epoch in range(900)]
    counts = np.bincount(masked)[1:]
    assert ((counts - 300) ** 2 / 300).sum() < 14, "2 degrees of freedom, p < 0.001"


def test_batches_move_between_devices_whole() -> None:
    batch = corpus_of(mask_share=0.5, targets="unseen").batch(np.arange(9), 0)
    moved = named_tensors(batch.to("meta"))
    assert moved.keys() == named_tensors(batch).keys()
    assert all(tensor.is_meta for tensor in moved.values())


def test_targets_without_masked_items_are_refused() -> None:
    with pytest.raises(ValueError, match="`targets` is 'unseen': no item is masked, so it has to be 'all'"):
        HistorySetOptions(targets="unseen")
