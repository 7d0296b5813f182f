"""Whether a language model's description fits its weights, found without making it. Files of a folder are not trusted."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from cllm4rec.messages import shorten

Shapes = Mapping[str, tuple[int, ...]]

LARGEST_CONFIG = 1 << 24  # bytes of a config.json
USUAL_LAYERS, USUAL_EXPERTS, USUAL_COUNT = (
    1_000,
    100_000,
    1 << 20,
)  # sizes that are cheap to describe, whatever the weights
SPARE_NUMBERS = 1 << 26  # numbers of a network beyond twice those of its weights: buffers are computed
UNREAD = {  # keys of config.json by which other files, kernels or formats would be loaded
    "quantization_config": "its weights are quantised",
    "transformers_weights": "it names another file of weights",
    "fusion_config": "it replaces layers",
}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder: one, or those that its index names.

    Raises:
        ValueError: there are none, or the index names a file outside the folder.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise ValueError(
            "it has no model.safetensors, and other weights are not read: save it with save_pretrained"
        )
    names = set(_read_json(index)["weight_map"].values())
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index.name} names {name!r}, which is not a safetensors file of the folder")
    return [folder / name for name in sorted(names)]


def weight_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, from the headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return shapes


def read_config(folder: Path, shapes: Shapes) -> PreTrainedConfig:
    """The configuration of a model's folder, once its counts are known to be of the order of its weights.

    Raises:
        ValueError: a count is beyond them, or something else than the folder's own weights would be loaded.
    """
    described = _read_json(folder / "config.json")
    for key, reason in UNREAD.items():
        if described.get(key) is not None:
            raise ValueError(f"config.json has {key}: {reason}, which this package does not read")
    kind = described.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ValueError(
            f"transformers has no model type {shorten(repr(kind))}, and code in a model's folder is never run"
        )
    _check_counts(described, shapes)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"it has no {file.name}")
    if file.stat().st_size > LARGEST_CONFIG:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes: more than {LARGEST_CONFIG:,}")
    try:
        described = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} cannot be read as JSON: {error}") from error
    if not isinstance(described, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return described


def _check_counts(described: dict[str, Any], shapes: Shapes) -> None:
    """Raise ValueError if the library would count further than there are weights: it makes lists and layers by counts."""
    layers = experts = 1
    left: list[Any] = [described]
    while left:
        part = left.pop()
        for key, value in part.items() if isinstance(part, dict) else [("", item) for item in part]:
            if isinstance(value, dict | list):
                left.append(value)
            elif isinstance(value, int) and not isinstance(value, bool):
                if key.startswith(("n_", "num_")) and value > USUAL_COUNT:
                    raise ValueError(
                        f"config.json: {shorten(key)} is {shorten(str(value))}, which is beyond any model"
                    )
                layers = max(layers, value) if "layer" in key else layers
                experts = max(experts, value) if "expert" in key else experts
                if layers > max(USUAL_LAYERS, len(shapes)) or layers * experts > max(
                    USUAL_EXPERTS, len(shapes)
                ):
                    raise ValueError(
                        f"config.json: {key} is {value}, but the weights are {len(shapes)} tensors"
                    )


def blank_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a configuration without any memory for its weights (on the meta device).

    Raises:
        ValueError: it is not a causal language model.
    """
    if config.is_encoder_decoder:
        raise ValueError(
            f"{config.model_type} has an encoder and a decoder, and is not a causal language model"
        )
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise ValueError(f"{config.model_type} reads in both directions, and is not a causal language model")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)


def check_architecture(
    config: PreTrainedConfig, shapes: Shapes, prefix: str | None = None
) -> PreTrainedModel:
    """Whether a configuration describes the network that weights are of, before any memory is taken for it.

    Args:
        config: of the model.
        shapes: name -> shape of the tensors of the weights' files.
        prefix: what the network's names begin with in the files, which hold all its weights. None: the names are those of
            a published model, which the library may rename as it loads them; then only tensors of equal name are compared.

    Returns:
        The model on the meta device.

    Raises:
        ValueError: a tensor has another shape than the configuration says, is missing or has no use; or the network is
            larger than its weights.
    """
    model = blank_model(config)
    tied = set(model.all_tied_weights_keys)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = dict(shapes)
    if prefix is not None:
        found = {
            name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)
        }
        odd = sorted(set(found) - set(expected)) + sorted(set(expected) - set(found) - tied)
        if odd:
            where = "has no use" if odd[0] in found else "is missing"
            raise ValueError(f"tensor {odd[0]} {where} in the network that config.json describes")
    for name, shape in expected.items():
        stored_shape = found.get(name, found.get(name.removeprefix(f"{model.base_model_prefix}."), shape))
        if stored_shape != shape:
            raise ValueError(
                f"tensor {name} has shape {list(stored_shape)}, and config.json describes {list(shape)}"
            )
    stored = _n_numbers(shapes.values())
    needed = _n_numbers(shape for name, shape in expected.items() if name not in tied)
    computed = _n_numbers(tuple(buffer.shape) for buffer in model.buffers())
    if max(needed, computed) > 2 * stored + SPARE_NUMBERS:
        raise ValueError(
            f"config.json describes {needed + computed:,} numbers, and the weights are {stored:,}"
        )
    return model


def _n_numbers(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
