"""A backbone in a GGUF file equals the same model in a folder. Damaged files are refused in one line."""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.models import load
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.gguf_files import read_header
from cllm4rec.models.language.loading import load_backbone
from tests.support.backbones import pretrained_run, refused_backbone, save_backbone, small_dataset
from tests.support.commands import call
from tests.support.gguf_files import write_gguf
from tests.support.tables import refused


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("llama") / "model", "llama", titled=True)


@pytest.fixture(scope="module")
def original_file(llama: Path) -> Path:
    return write_gguf(llama, llama.parent / "model.gguf")


@pytest.fixture
def file(original_file: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    (tmp_path / "model.gguf").write_bytes(original_file.read_bytes())
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_in_a_gguf_file_is_that_of_its_folder(dtype: str, llama: Path, original_file: Path) -> None:
    backbone, tokenizer = load_backbone(BackboneConfig(str(original_file), dtype=dtype))
    published = AutoModelForCausalLM.from_pretrained(llama, dtype=dtype, trust_remote_code=False)
    weights, expected = backbone.model.state_dict(), published.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    of_folder, of_tokenizer = load_backbone(BackboneConfig(str(llama), dtype=dtype))
    assert backbone.stored_sha256 == of_folder.stored_sha256
    tokens = torch.tensor([[5, 9, 2, 200, 17, 4]])
    with torch.no_grad():
        states = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, 32))
        logits = published(tokens).logits.float()
    rounding = 1e-5 if dtype == "float32" else 2e-2  # attention adds its products in another order
    largest = float(logits.abs().max())
    torch.testing.assert_close(backbone.word_logits(states), logits, rtol=0, atol=rounding * largest)
    text = "a user has interacted with Élan, 3 items"
    assert tokenizer(text)["input_ids"] == of_tokenizer(text)["input_ids"]
    assert tokenizer.eos_token_id == of_tokenizer.eos_token_id == 0


def test_the_header_has_the_shapes_of_the_weights(llama: Path, original_file: Path) -> None:
    header = read_header(original_file)
    assert header.values["general.architecture"] == "llama"
    assert header.values["llama.block_count"] == 2
    n_words = len(AutoTokenizer.from_pretrained(llama, trust_remote_code=False))
    assert header.shapes["token_embd.weight"] == (n_words, 32)
    assert header.shapes["blk.1.attn_k.weight"] == (16, 32)
    assert len(header.shapes) == 21


def test_a_run_on_a_gguf_file_is_trained_moved_and_served(file: Path, data: Path, tmp_path: Path) -> None:
    run = pretrained_run(data, file, tmp_path / "run")
    users, seen = np.arange(small_dataset().n_users), small_dataset().train
    scores = load(run).score(users, seen)
    moved = file.rename(tmp_path / "other.gguf")
    assert "there is no such file" in refused(lambda: call("evaluate", "--run", run))
    call("finetune", "--run", run, "--backbone", moved, "--epochs", 1)
    lists = ["--all", "--k", 3, "--output", tmp_path / "lists.csv"]
    for command, *flags in (["evaluate"], ["recommend", *lists]):
        call(str(command), "--run", run, "--backbone", moved, *flags)
    np.testing.assert_array_equal(load(run / "pretrain", backbone=moved).score(users, seen), scores)


def test_without_the_package_gguf_its_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, package=None: None if name == "gguf" else find_spec(name, package),
    )
    assert "gguf, which is not installed: pip install gguf (extra cllm4rec[gguf])" in refused_backbone(file)


@pytest.mark.parametrize("n_bytes", [0, 3, 20, 24, 100, 3000, -1])
def test_a_file_that_is_cut_is_refused(n_bytes: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:n_bytes])
    assert "cut" in refused_backbone(file)


def changed(file: Path, old: bytes, new: bytes) -> str:
    """The line with which a file is refused after the first occurrence of some bytes is replaced."""
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))
    return refused_backbone(file)


def number(key: str, value: int) -> bytes:
    """A metadata value of type uint32."""
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<II", 4, value)


def test_a_file_that_is_no_gguf_or_of_another_version_is_refused(file: Path) -> None:
    assert "it is a GGUF file of version 1: expected 2 or 3" in changed(file, b"GGUF\3", b"GGUF\1")
    assert "it is not a GGUF file" in changed(file, b"GGUF", b"FUGG")
    file.write_text("hello\n")
    assert "it is not a GGUF file" in refused_backbone(file)


def test_lengths_beyond_the_file_are_refused_before_the_library_believes_them(file: Path) -> None:
    content = file.read_bytes()
    key = b"tokenizer.ggml.token_type"
    start = content.index(key) + len(key)
    kind, element, n_tokens = struct.unpack_from("<IIQ", content, start)
    old = key + struct.pack("<IIQ", kind, element, n_tokens)
    assert "its header is cut" in changed(file, old, key + struct.pack("<IIQ", kind, element, 1 << 60))
    file.write_bytes(content)
    n_tensors, n_values = struct.unpack_from("<QQ", content, 8)
    old = content[:24]
    changed(file, old, old[:8] + struct.pack("<QQ", 1 << 62, n_values))
    file.write_bytes(content)
    assert "its header is cut" in changed(file, old, old[:8] + struct.pack("<QQ", n_tensors, 1 << 62))


def test_counts_and_shapes_are_compared_with_the_weights(file: Path) -> None:
    content = file.read_bytes()
    key = "llama.block_count"
    line = changed(file, number(key, 2), number(key, 1_000_000))
    assert "num_layers is 1000000, but the weights are 21 tensors" in line
    file.write_bytes(content)
    key = "llama.embedding_length"
    line = changed(file, number(key, 32), number(key, 64))
    assert "tensor token_embd.weight is [" in line
    assert ", 32], and its header describes [" in line
    file.write_bytes(content)
    key = "llama.feed_forward_length"
    changed(file, number(key, 64), number(key, 4_000_000_000))


def test_an_architecture_that_transformers_does_not_read_is_refused(llama: Path, tmp_path: Path) -> None:
    assert "architecture unheard is not supported" in refused_backbone(
        write_gguf(llama, tmp_path / "model.gguf", "unheard")
    )


def test_files_beside_it_are_not_read(file: Path) -> None:
    tokens = load_backbone(BackboneConfig(str(file)))[1]("interacted")["input_ids"]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "adapter_config.json"):
        (file.parent / name).write_text("{", "utf-8")
    assert load_backbone(BackboneConfig(str(file)))[1]("interacted")["input_ids"] == tokens


def test_a_file_of_another_kind_is_refused(folder: Path) -> None:
    assert "of files only GGUF is read (.gguf)" in refused_backbone(folder / "model.safetensors")
    assert "there is no such file" in refused_backbone(folder / "model.gguf")
