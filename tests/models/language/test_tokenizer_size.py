"""A tokenizer has to fit the embedding table."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from tests.support.backbones import refused_backbone, set_values
from tests.support.commands import call
from tests.support.tables import refused


def oversize(folder: Path) -> int:
    """Save a tokenizer with two tokens more than the embedding table has rows; returns the number of rows."""
    tokenizer = load_backbone(BackboneConfig(str(folder)))[1]
    n_rows = len(tokenizer)
    tokenizer.add_tokens(["Silent", "Broken"])
    tokenizer.save_pretrained(folder)
    return n_rows


def test_a_tokenizer_with_more_tokens_than_the_embedding_table_has_rows_is_refused(folder: Path) -> None:
    n_rows = oversize(folder)
    line = refused_backbone(folder)
    assert f"its tokenizer has {n_rows + 2} tokens (the last is 'Broken')" in line
    assert f"but its embedding table has {n_rows} rows" in line
    assert f"model.resize_token_embeddings({n_rows + 2})" in line


@pytest.mark.parametrize("system", ["cllm4rec", "rsllm"])
def test_an_oversized_tokenizer_is_refused_before_a_run_folder_is_made(
    system: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    oversize(folder)
    flags = ["--dataset", data, "--output", tmp_path / "run", "--backbone", folder, "--system", system]
    assert "resize_token_embeddings" in refused(lambda: call("pretrain", *flags))
    assert not (tmp_path / "run").exists()


def test_a_special_token_beyond_the_embedding_table_counts(folder: Path) -> None:
    set_values(folder / "tokenizer_config.json", {"eos_token": "<|new end|>"})
    assert "the last is '<|new end|>'" in refused_backbone(folder)


def test_a_tokenizer_smaller_than_the_embedding_table_is_read(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    model.resize_token_embeddings(400)
    model.save_pretrained(folder)
    backbone, tokenizer = load_backbone(BackboneConfig(str(folder)))
    assert (backbone.n_text_tokens, len(tokenizer)) == (400, 281)
