"""Weights have to be complete, finite and of the shapes that config.json describes."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cllm4rec.models.language.architecture import check_architecture, weight_shapes
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import RUN_PREFIX, load_backbone
from tests.support.backbones import fingerprint, refused_backbone, set_values
from tests.support.families import save_family
from tests.support.tables import refused


def test_quantised_weights_are_refused(folder: Path) -> None:
    set_values(folder / "config.json", {"quantization_config": {"quant_method": "gptq"}})
    assert "its weights are quantised" in refused_backbone(folder)


def test_a_missing_weight_is_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    line = refused(lambda: load_backbone(BackboneConfig(str(folder))))
    assert "missing keys transformer.h.1.mlp.c_fc.weight" in line


def test_weights_without_a_use_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Qwen 2 is a Llama with biases: as a Llama it would silently be another model."""
    folder, of_llama = save_family(tmp_path / "qwen", "Qwen2"), save_family(tmp_path / "llama", "Llama")
    load_backbone(BackboneConfig(str(folder)))
    assert not caplog.messages
    (of_llama / "config.json").replace(folder / "config.json")
    load_backbone(BackboneConfig(str(folder)))
    (line,) = caplog.messages
    assert "hold 6 tensors that a model of type llama has no use for, such as model.layers.0.self" in line


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_an_embedding_table_of_another_size_than_the_config_says_is_refused(
    prefix: str, folder: Path
) -> None:
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("transformer.", prefix): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    load_backbone(BackboneConfig(str(folder)))
    set_values(folder / "config.json", {"vocab_size": 282})
    assert (
        "tensor transformer.wte.weight has shape [281, 32], and config.json describes [282, 32]"
        in refused_backbone(folder)
    )


def test_tied_output_embeddings_need_not_be_stored(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    backbone, _ = load_backbone(BackboneConfig(str(folder)))
    assert torch.equal(backbone.output_embeddings, backbone.token_embeddings)


def test_an_embedding_table_that_is_not_finite_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][5, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "its embedding table is constant or not finite" in refused(
        lambda: load_backbone(BackboneConfig(str(folder)))
    )


@pytest.mark.parametrize("n_bytes", [0, 7, 100, 5000, -1])
def test_weights_that_are_cut_are_refused(n_bytes: int, folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:n_bytes])
    refused_backbone(folder)


def test_weights_in_several_files_are_the_same(original: Path, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {
        name: f"model-0000{1 + number % 2}-of-00002.safetensors"
        for number, name in enumerate(sorted(weights))
    }
    for file in sorted(set(files.values())):
        save_file(
            {name: weights[name] for name in weights if files[name] == file}, folder / file, {"format": "pt"}
        )
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}), "utf-8")
    assert fingerprint(folder) == fingerprint(original)
    for name in ("../model.safetensors", "/etc/passwd", "model.bin", None, 3):
        set_values(index, {"weight_map": {"a": name}})
        refused_backbone(folder)


def test_a_network_has_all_the_weights_of_its_run_and_no_others(folder: Path) -> None:
    config = load_backbone(BackboneConfig(str(folder)))[0].model.config
    shapes = weight_shapes([folder / "model.safetensors"])
    stored = {f"{RUN_PREFIX}{name}": shape for name, shape in shapes.items()} | {"items.weight": (3, 32)}
    model = check_architecture(config, stored, RUN_PREFIX)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    name = f"{RUN_PREFIX}transformer.h.1.ln_1.bias"
    without_bias = {key: shape for key, shape in stored.items() if key != name}
    assert "transformer.h.1.ln_1.bias is missing" in refused(
        lambda: check_architecture(config, without_bias, RUN_PREFIX)
    )
    with_third_layer = stored | {f"{RUN_PREFIX}transformer.h.2.ln_1.bias": (32,)}
    assert "transformer.h.2.ln_1.bias has no use" in refused(
        lambda: check_architecture(config, with_third_layer, RUN_PREFIX)
    )
    reshaped = stored | {name: (33,)}
    assert "has shape [33], and config.json describes [32]" in refused(
        lambda: check_architecture(config, reshaped, RUN_PREFIX)
    )


def test_a_backbone_is_the_same_however_it_is_loaded(folder: Path) -> None:
    """The library is handed each weight and reads nothing from the folder itself."""
    published = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    ).state_dict()
    backbone: Backbone = load_backbone(BackboneConfig(str(folder), dtype="float32"))[0]
    weights = backbone.model.state_dict()
    assert weights.keys() == published.keys()
    assert all(torch.equal(weights[name], published[name]) for name in weights)
    assert re.fullmatch("[0-9a-f]{64}", backbone.fingerprint())
