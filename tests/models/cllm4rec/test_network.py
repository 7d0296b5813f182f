"""States of the network: padding, order, causality, and the table that IDs are read from."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.corpora.histories import HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.history_batches import HistoryPrompts, fill, prompt_batch
from cllm4rec.corpora.prompts import Template
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.training import small_dataset


@cache
@torch.enable_grad()
def rough_model() -> CLLM4Rec:
    """A model with random layers: without training they are the identity."""
    model = CLLM4Rec().fit_stage(small_dataset().train, "pretrain", TrainConfig(epochs=1, batch_size=16))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.net.backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for table in (model.net.collaborative, model.net.content):
            table.fill(0.1 * torch.randn(table.whole().shape, generator=generator))
    model.net.eval()
    return model


def recommendation_batch(histories: list[list[int]]) -> HistoryPrompts:
    """A prompt for each history, of users 0, 1, ..."""
    model = rough_model()
    items = Ragged.from_lists([np.array(history, dtype=np.int64) for history in histories])
    users = np.arange(len(histories))
    template = Template.compile("recommend", model.tokenizer)
    return prompt_batch(
        model.tokenizer, *fill(template, model.tokenizer, users, items, np.ones(len(users), dtype=bool))
    )


def order_free(batch: HistoryPrompts) -> Tensor:
    """Mask of the item tokens, which attend without order."""
    free = torch.zeros_like(batch.mask).flatten()
    free[batch.item_index] = True
    return free.view_as(batch.mask)


@torch.no_grad()
@pytest.mark.parametrize("as_set", [False, True], ids=["causal", "order-free"])
def test_padding_changes_nothing(as_set: bool) -> None:
    net = rough_model().net
    batch = recommendation_batch([[1, 2, 3, 4], [5, 6, 7, 8]])
    free = order_free(batch) if as_set else None
    states = net.backbone(batch.tokens, batch.mask, net.collaborative, free)
    for filler in (0, 7, net.backbone.n_text_tokens + 3):
        pad = torch.full((2, 5), filler)
        tokens = torch.cat([batch.tokens, pad], dim=1)
        mask = torch.cat([batch.mask, torch.zeros(2, 5, dtype=torch.bool)], dim=1)
        wider = None if free is None else torch.cat([free, torch.zeros(2, 5, dtype=torch.bool)], dim=1)
        padded = net.backbone(tokens, mask, net.collaborative, wider)[:, : states.shape[1]]
        torch.testing.assert_close(padded, states, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("finetuned", [False, True], ids=["causal last token", "pooled order-free"])
def test_a_history_has_the_same_state_alone_and_with_a_longer_history(finetuned: bool) -> None:
    net = rough_model().net
    alone = net.user_states(recommendation_batch([[1, 2, 3]]), finetuned)[0]
    padded = net.user_states(recommendation_batch([[1, 2, 3], list(range(4, 20))]), finetuned)[0]
    torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_order_free_attention_does_not_see_the_order_of_the_shown_items() -> None:
    net, shown = rough_model().net, list(range(3, 17))
    shuffled = np.random.default_rng(0).permutation(shown).tolist()
    batches = recommendation_batch([shown]), recommendation_batch([shuffled])
    torch.testing.assert_close(*[net.user_states(batch) for batch in batches], rtol=1e-5, atol=1e-5)
    at_query = []
    for batch in batches:
        states = net.backbone(batch.tokens, batch.mask, net.collaborative, order_free(batch))
        at_query.append(states.flatten(0, 1)[batch.query_index])
    torch.testing.assert_close(*at_query, rtol=1e-5, atol=1e-5)
    causal = [net.user_states(batch, finetuned=False) for batch in batches]
    assert not torch.allclose(*causal, rtol=1e-3, atol=1e-3), "otherwise the layers compute nothing"


@torch.no_grad()
def test_causal_attention_sees_no_later_token() -> None:
    net = rough_model().net
    batch = recommendation_batch([[1, 2, 3, 4, 5, 6]])
    changed = batch.tokens.clone()
    index = int(batch.item_index[3])
    changed[0, index] = net.backbone.n_text_tokens + net.n_users + 20
    before, after = (
        net.backbone(tokens, batch.mask, net.collaborative)[0] for tokens in (batch.tokens, changed)
    )
    torch.testing.assert_close(before[:index], after[:index], rtol=1e-6, atol=1e-6)
    for position in range(index, before.shape[0]):
        assert not torch.allclose(before[position], after[position], rtol=1e-3, atol=1e-3), position


@torch.no_grad()
def test_ids_read_the_table_that_is_given_and_words_do_not() -> None:
    net = rough_model().net
    batch = recommendation_batch([[1, 2]])
    index = int(batch.item_index[0])
    before = net.backbone(batch.tokens, batch.mask, net.collaborative)[0]
    table = net.collaborative.whole()
    table[net.n_users + 1] *= -1
    after = net.backbone(batch.tokens, batch.mask, table)[0]
    torch.testing.assert_close(before[:index], after[:index], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(before[index], after[index], rtol=1e-3)


def test_mutual_weights_of_an_epoch_sum_to_one_for_each_id_that_occurs() -> None:
    model, train = rough_model(), small_dataset().train.interactions
    corpus = RecommendationCorpus(train, model.tokenizer, HistoryCorpusOptions(1024, user_dropping=0.3))
    total, selection = torch.zeros(train.n_users + train.n_items), corpus.selection(3)
    for start in range(0, len(selection), 7):
        batch = corpus.batch(selection[start : start + 7], 3)
        total.index_add_(0, batch.ids, batch.id_weights)
    occurs = total > 0
    torch.testing.assert_close(total[occurs], torch.ones(int(occurs.sum())), rtol=1e-5, atol=1e-5)
    assert occurs[train.n_users :].sum() > 0
    assert not occurs[: train.n_users].all(), "dropped user tokens do not occur"
