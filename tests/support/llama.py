"""CLLM4Rec networks on a small random Llama."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.corpora.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.language.loading import load_backbone
from tests.support.reviewed_books import reviewed_books

MUTUAL, PRIOR = 0.7, 0.3  # far from each other, from 1 and from the defaults


def save_llama(folder: Path) -> Path:
    """A small Llama with large weights, whose output embeddings are not its input embeddings."""
    texts = [
        "a user has interacted with an item and will interact with",
        *reviewed_books().item_texts["title"],
    ]
    tokenizer = train_bpe(texts, vocabulary=300)
    described = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(described, trust_remote_code=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama_network(folder: Path, **settings: Any) -> tuple[CLLM4RecNet, ExtendedTokenizer]:
    """A network on the small Llama, tuned in full, with two different random tables."""
    world = reviewed_books()
    config = CLLM4RecConfig(backbone=str(folder), tune="full", mutual=MUTUAL, prior=PRIOR, **settings)
    backbone, words = load_backbone(config)
    assert not torch.equal(backbone.token_embeddings, backbone.output_embeddings)
    assert backbone.id_scale > 2, "for a forgotten factor to show"
    net = CLLM4RecNet(backbone, config, world.n_users, world.n_items)
    generator = torch.Generator().manual_seed(7)
    for table in (net.collaborative, net.content):
        table.fill(0.15 * torch.randn(table.whole().shape, generator=generator))
    return net, ExtendedTokenizer(words, backbone.n_text_tokens, world.n_users, world.n_items)


def normalised(states: Tensor) -> Tensor:
    """States (..., d), each with mean 0 and variance 1 over its d numbers."""
    centred = states - states.mean(-1, keepdim=True)
    return centred / (states.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
