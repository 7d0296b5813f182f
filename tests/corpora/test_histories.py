"""Which items of a history are shown, predicted or cut, and in which order."""

import numpy as np
import pytest

from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from tests.support.histories import corpora, examples_of, histories, random_histories, whole_epoch


@pytest.mark.parametrize("kind", ["collaborative", "recommendation"])
def test_items_are_shuffled_anew_in_each_epoch_and_by_each_seed(bpe: ExtendedTokenizer, kind: str) -> None:
    first, again = corpora(bpe)[kind], corpora(bpe)[kind]
    other_seed = corpora(bpe, seed=1)[kind]
    rows = np.arange(len(first.users))
    tokens = [first.batch(rows, epoch).tokens.tolist() for epoch in (0, 1)]
    assert tokens[0] == again.batch(rows, 0).tokens.tolist()
    assert tokens[0] != other_seed.batch(rows, 0).tokens.tolist()
    first_orders, second_orders = (
        [[token for token in row if token >= bpe.item(0)] for row in rows_of_epoch]
        for rows_of_epoch in tokens
    )
    changed = [a != b for a, b in zip(first_orders, second_orders, strict=True) if len(a) > 5]
    assert np.mean(changed) > 0.95


def test_every_order_of_items_is_equally_likely(bpe: ExtendedTokenizer) -> None:
    corpus = CollaborativeCorpus(histories([[1, 2, 3]]), bpe, HistoryCorpusOptions(context=20))
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(1800):
        order = tuple(corpus.batch(np.array([0]), epoch).target_items.tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    chi_square = sum((n - 300) ** 2 / 300 for n in counts.values())
    assert chi_square < 22, "5 degrees of freedom, p < 0.0006"


@pytest.mark.parametrize("order", ["random", "time"])
def test_every_item_of_a_collaborative_text_is_predicted_the_first_too(
    bpe: ExtendedTokenizer, order: str
) -> None:
    train = random_histories()
    corpus = CollaborativeCorpus(train, bpe, HistoryCorpusOptions(context=200, order=order))
    prompt = bpe.encode_words(" has interacted with", after_id=True)
    for batch in whole_epoch(corpus, 0):
        after = batch.tokens.flatten()[batch.state_index + 1]
        assert (after == bpe.item(0) + batch.target_items).all()
        assert len(batch.state_index) == batch.n_targets
    for example, user in zip(examples_of(corpus.batch(np.arange(20), 0), bpe), corpus.users, strict=False):
        items = train.history(user).tolist()
        assert example["tokens"][: 1 + len(prompt)] == [bpe.user(user), *prompt]
        assert example["targets"] == items if order == "time" else sorted(example["targets"]) == sorted(items)


def test_users_without_training_items_make_no_example(bpe: ExtendedTokenizer) -> None:
    corpus = corpora(bpe)["collaborative"]
    assert 0 not in corpus.users
    assert corpus.users.tolist() == np.flatnonzero(np.diff(random_histories().indptr)).tolist()


@pytest.mark.parametrize("kind", ["collaborative", "recommendation"])
@pytest.mark.parametrize("order", ["random", "time"])
def test_a_long_history_loses_items_and_never_words_or_the_query(
    bpe: ExtendedTokenizer, kind: str, order: str
) -> None:
    context = 20
    corpus = corpora(bpe, context=context, order=order)[kind]
    written = (
        "user_{u} has interacted with"
        if kind == "collaborative"
        else "user_{u} has interacted with, user_{u} will interact with"
    )
    train, cut = random_histories(), 0
    for epoch in range(2):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        assert batch.tokens.shape[1] <= context
        for example, user in zip(examples_of(batch, bpe), corpus.users.tolist(), strict=True):
            items = [token - bpe.item(0) for token in example["tokens"] if token >= bpe.item(0)]
            rest = [token for token in example["tokens"] if token < bpe.item(0)]
            assert rest == bpe.encode(written.format(u=user))
            history = train.history(user).tolist()
            fit = history
            if kind == "recommendation":
                fit = [item for item in history if item not in example["targets"]]
            assert set(items) <= set(fit)
            assert len(items) == len(set(items)) == min(len(fit), corpus.room)
            cut += len(items) < len(fit)
            if order == "time":
                assert items == fit[len(fit) - len(items) :]  # the oldest go
    assert cut > 20


@pytest.mark.parametrize("kind", ["collaborative", "recommendation"])
def test_a_context_without_room_for_two_items_is_an_error(bpe: ExtendedTokenizer, kind: str) -> None:
    with pytest.raises(ValueError, match="no room for two items"):
        corpora(bpe, context=5)[kind]


@pytest.mark.parametrize("mask_share", [0.2, 0.5, 0.9])
def test_the_masked_items_are_a_random_share_and_the_others_are_shown(
    bpe: ExtendedTokenizer, mask_share: float
) -> None:
    train = random_histories()
    corpus = RecommendationCorpus(train, bpe, HistoryCorpusOptions(context=500, mask_share=mask_share))
    masked_before: dict[int, list[list[int]]] = {}
    for epoch in range(2):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        for example, user in zip(examples_of(batch, bpe), corpus.users.tolist(), strict=True):
            history = train.history(user).tolist()
            n = len(history)
            shown = [token - bpe.item(0) for token in example["tokens"] if token >= bpe.item(0)]
            assert sorted(shown + example["targets"]) == sorted(history)
            if n > 1:
                assert len(example["targets"]) == min(n - 1, max(1, round(mask_share * n)))
            if n > 10:
                masked_before.setdefault(user, []).append(sorted(example["targets"]))
    assert np.mean([a != b for a, b in masked_before.values()]) > 0.8


def test_in_time_order_a_suffix_of_random_length_is_masked(bpe: ExtendedTokenizer) -> None:
    train = random_histories()
    corpus = RecommendationCorpus(train, bpe, HistoryCorpusOptions(context=500, mask_share=0.3, order="time"))
    lengths: dict[int, set[int]] = {}
    for epoch in range(30):
        batch = corpus.batch(np.arange(len(corpus.users)), epoch)
        for example, user in zip(examples_of(batch, bpe), corpus.users.tolist(), strict=True):
            history = train.history(user).tolist()
            shown = [token - bpe.item(0) for token in example["tokens"] if token >= bpe.item(0)]
            assert shown + example["targets"] == history
            lengths.setdefault(len(history), set()).add(len(example["targets"]))
    for n, seen in lengths.items():
        assert seen <= set(range(1, max(1, min(n - 1, round(0.3 * n))) + 1))
    assert lengths[max(lengths)] == set(range(1, round(0.3 * max(lengths)) + 1))


@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize("targets", ["unseen", "masked", "all"])
def test_a_user_with_one_item_keeps_the_user_token_and_that_item_is_the_target(
    bpe: ExtendedTokenizer, order: str, targets: str
) -> None:
    options = HistoryCorpusOptions(context=40, order=order, user_dropping=1.0, targets=targets)
    corpus = RecommendationCorpus(histories([[7], [1, 2, 3]]), bpe, options)
    single, several = examples_of(corpus.batch(np.array([0, 1]), 0), bpe)
    assert single["tokens"] == bpe.encode("user_0 has interacted with, user_0 will interact with")
    assert single["targets"] == [7]
    assert bpe.user(1) not in several["tokens"]


def test_what_finetuning_predicts_and_leaves_out_is_an_option(bpe: ExtendedTokenizer) -> None:
    train, rows = random_histories(), np.arange(60)
    made = {
        targets: RecommendationCorpus(train, bpe, HistoryCorpusOptions(context=500, targets=targets)).batch(
            rows, 0
        )
        for targets in ("unseen", "masked", "all")
    }
    unseen, masked, everything = made["unseen"], made["masked"], made["all"]
    assert unseen.tokens.tolist() == masked.tokens.tolist() == everything.tokens.tolist()
    assert unseen.target_items.tolist() == masked.target_items.tolist()
    assert masked.excluded is None and everything.excluded is None
    width = unseen.tokens.shape[1]
    for row in range(len(rows)):
        shown = [token - bpe.item(0) for token in unseen.tokens[row].tolist() if token >= bpe.item(0)]
        assert unseen.excluded.items[unseen.excluded.rows == row].tolist() == shown
        assert set(unseen.target_items[unseen.target_rows == row].tolist()).isdisjoint(shown)
        predicted = everything.target_items[everything.target_rows == row].tolist()
        user = RecommendationCorpus(train, bpe, HistoryCorpusOptions(context=500)).users[row]
        assert sorted(predicted) == sorted(train.history(user).tolist())
        pool = unseen.item_index[unseen.item_rows == row]
        assert (unseen.tokens.flatten()[pool] - bpe.item(0)).tolist() == shown
        assert unseen.query_index[row] == row * width + int(unseen.mask[row].sum()) - 1
