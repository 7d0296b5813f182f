"""Folders of small untrained language models, and the lines with which damaged ones are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, LlamaConfig, PreTrainedModel
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.corpora.tokenizer import train_bpe
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.manifest import MANIFEST, file_record
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import check_backbone, load_backbone
from cllm4rec.training.run_description import signed_text
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

ARCHITECTURES = ("gpt2", "llama")


def small_dataset() -> Dataset:
    """40 readers, 30 books."""
    return taste_dataset(4, 40, 30, 10)


def architecture_config(
    architecture: str, n_tokens: int, dropout: float = 0.0, context: int = 256
) -> GPT2Config | LlamaConfig:
    """Two layers of width 32 of GPT-2 or Llama."""
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=n_tokens,
            n_positions=context,
            n_embd=32,
            n_layer=2,
            n_head=2,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=0,
            eos_token_id=0,
        )
    return LlamaConfig(
        vocab_size=n_tokens,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        attention_dropout=dropout,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )


def save_backbone(
    folder: Path,
    architecture: str = "gpt2",
    dropout: float = 0.0,
    seed: int = 0,
    context: int = 256,
    titled: bool = False,
) -> Path:
    """An untrained language model and its tokenizer, as Hugging Face folders.

    Titled, the tokenizer has tokens for the titles of `small_dataset()`.
    """
    titles = small_dataset().item_texts["title"] if titled else []
    tokenizer = train_bpe(["a user has interacted with an item", *titles], vocabulary=400)
    torch.manual_seed(seed)
    config = architecture_config(architecture, len(tokenizer), dropout, context)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 of the weights."""
    return str(load_backbone(BackboneConfig(str(folder)))[0].stored_sha256)


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    described = json.loads(file.read_text("utf-8"))
    changed = change(described)
    file.write_text(json.dumps(described if changed is None else changed), "utf-8")


def set_values(file: Path, values: dict[str, Any]) -> None:
    """Set some keys of a JSON file."""
    edit(file, lambda described: described | values)


def pretrained_run(data: Path, folder: Path, run: Path, *flags: object) -> Path:
    """A run folder of one epoch of pretraining on the backbone in `folder`."""
    call("pretrain", "--dataset", data, "--output", run, "--backbone", folder, "--epochs", 1, *flags)
    return run


def sign_run(run: Path) -> None:
    """Match run.json to the manifests of its stages, as a hostile author would."""
    description = RunFolder(run).description
    for name, stage in description.stages.items():
        sha256 = file_record(run / name / MANIFEST).sha256
        description.stages[name] = replace(stage, manifest_sha256=sha256)
    (run / "run.json").write_text(signed_text(description))


def refused_backbone(folder: Path) -> str:
    """The line with which a folder is refused_backbone, the same with and without its weights."""
    config = BackboneConfig(str(folder))
    line = refused(lambda: check_backbone(config))
    assert refused(lambda: load_backbone(config)) == line
    assert str(folder) in line
    return line
