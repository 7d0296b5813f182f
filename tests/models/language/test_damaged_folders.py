"""Damaged configurations and tokenizers, in a backbone's folder and in a run."""

from pathlib import Path
from typing import Any

import pytest

from cllm4rec.files.manifest import write_manifest
from cllm4rec.models import load
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from tests.support.backbones import refused_backbone, set_values, sign_run
from tests.support.commands import call
from tests.support.tables import refused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layer", 10**6),
        ("n_layer", 10**12),
        ("n_layer", "2"),
        ("n_layer", None),
        ("vocab_size", 10**12),
        ("vocab_size", 10**30),
        ("n_embd", "32"),
        ("n_embd", 10**9),
        ("n_embd", -32),
        ("n_head", 0),
        ("n_head", 5),
        ("n_positions", 10**10),
        ("num_labels", 10**9),
        ("num_experts", 10**9),
        ("activation_function", "no such function"),
        ("model_type", ["gpt2"]),
        ("model_type", None),
        ("architectures", 3),
        ("text_config", {"num_hidden_layers": 10**9}),
    ],
)
def test_a_config_beyond_its_weights_is_refused(key: str, value: Any, folder: Path) -> None:
    set_values(folder / "config.json", {key: value})
    if key == "architectures":  # not read
        load_backbone(BackboneConfig(str(folder)))
    else:
        refused_backbone(folder)


DEEP = (b"[" * 100_000, b'{"a":' * 100_000)
DAMAGED = (b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"{}", b'{"n_layer": 1' + b"0" * 5000 + b"}", *DEEP)
TOKENIZER_FIELDS = (
    "model",
    "added_tokens",
    "pre_tokenizer",
    "decoder",
    "normalizer",
    "post_processor",
    "version",
)
INVALID_VALUES: tuple[Any, ...] = (
    None,
    [],
    {},
    "x",
    3,
    [None],
    {"type": None},
    {"type": "BPE", "vocab": None, "merges": None},
)


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_file_with_other_content_is_refused(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    refused_backbone(folder)


@pytest.mark.parametrize("field", TOKENIZER_FIELDS)
@pytest.mark.parametrize("value", INVALID_VALUES, ids=range(len(INVALID_VALUES)))
def test_a_damaged_tokenizer_is_read_or_refused(field: str, value: Any, folder: Path) -> None:
    set_values(folder / "tokenizer.json", {field: value})
    try:
        load_backbone(BackboneConfig(str(folder)))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_damaged_json_in_a_run_is_refused(data: Path, tmp_path: Path) -> None:
    call("pretrain", "--dataset", data, "--output", tmp_path / "run", "--epochs", 1, "--backbone", "tiny")
    inner = tmp_path / "run" / "pretrain" / "backbone"
    load(tmp_path / "run")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        whole = (inner / file).read_bytes()
        changes = [("n_layer", 10**6), ("n_layer", 1), ("n_layer", 3), ("n_embd", "128"), ("vocab_size", 10)]
        for key, value in changes if file == "config.json" else []:
            (inner / file).write_bytes(whole)
            set_values(inner / file, {key: value})
            assert f"{inner.parent} is damaged" in refused(lambda: load(tmp_path / "run"))
            write_manifest(inner.parent)  # as a hostile author would
            sign_run(tmp_path / "run")
            assert f"{inner} is damaged" in refused(lambda: load(tmp_path / "run"))
        for content in (b"", b"{", b"[" * 100_000):
            (inner / file).write_bytes(content)
            write_manifest(inner.parent)
            sign_run(tmp_path / "run")
            assert f"{inner} is damaged" in refused(lambda: load(tmp_path / "run"))
        (inner / file).unlink()
        write_manifest(inner.parent)
        sign_run(tmp_path / "run")
        if file != "tokenizer_config.json":
            assert f"{inner} is damaged" in refused(lambda: load(tmp_path / "run"))
        (inner / file).write_bytes(whole)
        write_manifest(inner.parent)
        sign_run(tmp_path / "run")
    load(tmp_path / "run")
