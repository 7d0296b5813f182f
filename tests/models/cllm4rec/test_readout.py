"""The state of a user is read from the states of the prompt."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.corpora.history_batches import HistoryPrompts, fill, prompt_batch
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from tests.support.llama import llama_network, normalised

HISTORIES: list[list[int]] = [[3, 1, 12], [], [5], [0, 2, 4, 6, 8, 10, 11], [], [7, 9]]
KEEPS_USER = np.array([True, True, False, True, True, False])


def history_batch(tokenizer: ExtendedTokenizer) -> HistoryPrompts:
    """Prompts of many lengths, two of them without items and two without their user token."""
    items = Ragged.from_lists([np.array(history, dtype=np.int64) for history in HISTORIES])
    template = Template.compile("recommend", tokenizer)
    return prompt_batch(tokenizer, *fill(template, tokenizer, np.arange(len(HISTORIES)), items, KEEPS_USER))


def backbone_states(net: CLLM4RecNet, batch: HistoryPrompts, as_set: bool) -> list[Tensor]:
    """States of each prompt without padding."""
    items = batch.tokens >= net.backbone.n_text_tokens + net.n_users
    states = net.backbone(batch.tokens, batch.mask, net.collaborative, items & batch.mask if as_set else None)
    return [row[mask] for row, mask in zip(states, batch.mask, strict=True)]


both_attentions = pytest.mark.parametrize("attention", ["causal", "bidirectional"])


@torch.no_grad()
@both_attentions
def test_pooled_readout_is_the_normalised_mean_of_the_item_states(attention: str, llama: Path) -> None:
    net, tokenizer = llama_network(llama, readout="pooled", attention=attention)
    batch = history_batch(tokenizer)
    users = net.user_states(batch)
    assert users.shape == (len(HISTORIES), net.backbone.width)
    for row, states in enumerate(backbone_states(net, batch, attention == "bidirectional")):
        tokens = batch.tokens[row][batch.mask[row]]
        indices = [tokens.tolist().index(tokenizer.item(item)) for item in HISTORIES[row]]
        if indices:
            torch.testing.assert_close(users[row], normalised(states[indices].mean(0)), rtol=1e-5, atol=1e-5)
            assert abs(users[row].mean().item()) < 1e-5
            assert users[row].var(correction=0).item() == pytest.approx(1, abs=1e-2)


@torch.no_grad()
@both_attentions
def test_pooled_readout_of_a_prompt_without_items_is_the_normalised_state_at_its_last_token(
    attention: str, llama: Path
) -> None:
    net, tokenizer = llama_network(llama, readout="pooled", attention=attention)
    batch = history_batch(tokenizer)
    users, states = net.user_states(batch), backbone_states(net, batch, attention == "bidirectional")
    empty = [row for row, history in enumerate(HISTORIES) if not history]
    assert len(empty) == 2
    for row in empty:
        torch.testing.assert_close(users[row], normalised(states[row][-1]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@both_attentions
def test_last_readout_is_the_normalised_state_at_the_last_real_token(attention: str, llama: Path) -> None:
    net, tokenizer = llama_network(llama, readout="last", attention=attention)
    batch = history_batch(tokenizer)
    assert not batch.mask[:, -1].all(), "some prompts are padded"
    users = net.user_states(batch)
    for row, states in enumerate(backbone_states(net, batch, attention == "bidirectional")):
        torch.testing.assert_close(users[row], normalised(states[-1]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_before_finetuning_the_user_is_read_causally_at_the_last_token(llama: Path) -> None:
    net, tokenizer = llama_network(llama, readout="pooled", attention="bidirectional")
    batch = history_batch(tokenizer)
    users = net.user_states(batch, finetuned=False)
    for row, states in enumerate(backbone_states(net, batch, as_set=False)):
        torch.testing.assert_close(users[row], normalised(states[-1]), rtol=1e-5, atol=1e-5)
