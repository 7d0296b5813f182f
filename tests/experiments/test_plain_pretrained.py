"""The plain loops on a pretrained model compute what the package computes."""

import math
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from experiments.benchmarks.backbones import save_backbone
from experiments.benchmarks.plain_pretrained import PlainModel, cross_entropy, load_frozen
from experiments.benchmarks.pretrained import products


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_backbone(tmp_path, ["some words to learn from"], GPT2Config(n_embd=32, n_layer=2, n_head=2))
    return tmp_path


def test_plain_states_and_word_loss_are_those_of_a_backbone(folder: Path) -> None:
    backbone, _ = load_backbone(BackboneConfig(backbone=str(folder), tune="frozen"))
    plain = PlainModel(load_frozen(folder, backbone.model.dtype))
    n_words, generator = backbone.n_text_tokens, torch.Generator().manual_seed(0)
    tokens = n_words - 20 + torch.randint(29, (3, 7), generator=generator)  # 20 words, 9 IDs
    mask = torch.arange(7) < torch.tensor([7, 5, 6])[:, None]
    table, targets = torch.randn(9, 32, generator=generator), torch.arange(18)
    states = plain.states(tokens, mask, table * backbone.id_scale)[mask.flatten()].float()
    expected = backbone(tokens, mask, table)[mask].float()
    torch.testing.assert_close(states, expected, rtol=0.02, atol=0.02)
    loss = plain.word_loss(expected.to(backbone.model.dtype), targets)
    torch.testing.assert_close(loss, backbone.word_nll(expected, targets), rtol=1e-3, atol=1e-3)


def test_the_plain_softmax_by_hand() -> None:
    states, classes = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2)
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))
    assert cross_entropy(states, classes, torch.tensor([0, 1])).item() == pytest.approx(expected)


def test_products_are_those_of_all_layers_for_the_states_and_their_gradients(folder: Path) -> None:
    with FlopCounterMode(display=False) as counter:
        products(load_frozen(folder, torch.float32), 5)()
    weights = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128)  # of two layers of GPT-2
    assert counter.get_total_flops() == 2 * 2 * 5 * weights
