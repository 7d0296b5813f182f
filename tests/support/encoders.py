"""Encoders of texts: folders of small untrained models, and one that counts letters."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cllm4rec.corpora.tokenizer import END, train_bpe
from tests.support.backbones import save_backbone

TITLES = [
    "Alien",
    "Brazil, or how a clerk dreams",
    "Cube (1997)",
    "a river",
    "",
    "Alien",
    "the long way home",
]
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


class Letters:
    """Counts the letters a, e and o of a text; remembers what it read."""

    fingerprint = "letters"

    def __init__(self) -> None:
        self.read: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.read.append(list(texts))
        return np.array([[text.count(letter) for letter in "aeo"] for text in texts], dtype=np.float32)


def save_language_model(folder: Path, architecture: str = "llama", seed: int = 0) -> Path:
    """A small untrained causal language model whose tokenizer begins a text with its end token."""
    save_backbone(folder, architecture, seed=seed, context=24)
    tokenizer = train_bpe(["a user has interacted with an item"], vocabulary=400)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, 0)]
    )
    tokenizer.save_pretrained(folder)
    return folder


def save_sentence_encoder(folder: Path, seed: int = 0) -> Path:
    """A small untrained BERT with mean pooling, as sentence-transformers saves it."""
    words = [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[UNK]",
        "alien",
        "brazil",
        "cube",
        "a",
        "river",
        "long",
        "way",
        "home",
    ]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    write_json(folder / "modules.json", MODULES)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def write_json(file: Path, content: object) -> None:
    """Write a value as JSON."""
    file.write_text(json.dumps(content), "utf-8")
