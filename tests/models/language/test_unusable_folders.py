"""Folders that hold no causal language model are refused in one line."""

from pathlib import Path

import pytest
from transformers import BartConfig, BertConfig, T5Config
from transformers.models.auto import AutoModelForSeq2SeqLM
from transformers.models.bart import BartForConditionalGeneration
from transformers.models.bert import BertForMaskedLM

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import check_backbone
from tests.support.backbones import ARCHITECTURES, refused_backbone, save_backbone, set_values
from tests.support.tables import refused


def test_a_folder_that_is_missing_or_empty_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "cannot be loaded" in refused_backbone(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refused_backbone(tmp_path / "empty")


def test_a_folder_of_a_model_that_is_no_causal_language_model_is_refused_in_one_line(tmp_path: Path) -> None:
    config = T5Config(
        vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    assert "cannot be loaded" in refused_backbone(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_folder_whose_weights_are_cut_is_refused_in_one_line(share: float, folder: Path) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cannot be loaded: model.safetensors is cut or damaged: " in refused_backbone(folder)


@pytest.mark.parametrize("content", [b"not weights", b"version https://git-lfs", bytes(64)])
def test_a_folder_whose_weights_are_something_else_is_refused_in_one_line(
    content: bytes, folder: Path
) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "cannot be loaded: model.safetensors is cut or damaged: " in refused_backbone(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_without_a_tokenizer_is_refused_in_one_line(architecture: str, tmp_path: Path) -> None:
    """Hugging Face builds an empty tokenizer for some architectures: every text would be lost silently."""
    folder = save_backbone(tmp_path / "backbone", architecture)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # the second alone is no tokenizer
        (folder / name).unlink()
        line = refused_backbone(folder)
        assert "cannot be loaded: it has no tokenizer: expected tokenizer.json or tokenizer.model or " in line


def test_a_damaged_tokenizer_is_not_called_missing(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    line = refused_backbone(folder)
    assert "cannot be loaded: " in line
    assert "it has no tokenizer" not in line


def test_an_encoder_is_refused(folder: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=281, **sizes)).save_pretrained(folder)
    assert "bert reads in both directions" in refused_backbone(folder)


def test_an_encoder_with_a_decoder_is_refused(folder: Path) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    heads = {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    BartForConditionalGeneration(BartConfig(vocab_size=281, **sizes, **heads)).save_pretrained(folder)
    assert "bart has an encoder and a decoder" in refused_backbone(folder)


def test_a_long_reason_of_a_library_is_shortened(folder: Path) -> None:
    set_values(folder / "config.json", {"n_inner": "x" * 5000})
    assert len(refused_backbone(folder).replace(str(folder), "")) < 400
    set_values(folder / "config.json", {"n_inner": None, "model_type": "x" * 5000})
    line = refused_backbone(folder)
    assert len(line.replace(str(folder), "")) < 400
    assert "code in a model's folder is never run" in line


def test_a_name_that_is_no_model_is_refused_in_one_line() -> None:
    for name in ("nobody/nothing", "a b", "./none", "none/none/none", "~/none", "x\0y"):
        assert repr(name) in refused(lambda name=name: check_backbone(BackboneConfig(name)))
