"""Backbones of any size as local folders, not pretrained."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import GPT2Config
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.corpora.tokenizer import train_bpe


def save_backbone(folder: Path, texts: Iterable[str], config: GPT2Config) -> str:
    """Save a GPT-2 model with random weights, and a BPE tokenizer trained on the texts.

    Returns:
        The folder, as `backbone` of a system's settings takes it.
    """
    tokenizer = train_bpe(texts, vocabulary=min(config.vocab_size, 4096))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
