"""Checks of a language model's configuration against its weights, before it is built."""

import inspect
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from cllm4rec.messages import shorten
from cllm4rec.models.description import Shapes

MAX_CONFIG_BYTES = 1 << 24
# Counts up to these are accepted for any weights, as building such a network on the meta device is cheap.
FREE_LAYERS, FREE_EXPERTS = 1_000, 100_000
MAX_COUNT = 1 << 20  # of anything
EXTRA_NUMBERS = 1 << 26  # allowed beyond twice the numbers of the weights: buffers are computed
REFUSED_KEYS = {  # of config.json: they make the library load other files, kernels or formats
    "quantization_config": "its weights are quantised",
    "transformers_weights": "it names another file of weights",
    "fusion_config": "it replaces layers",
}
REQUIRED_ARGUMENTS = ("inputs_embeds", "attention_mask", "use_cache")  # of the layers
CACHE_ARGUMENTS = ("cache", "past_key_values")  # of the layers: since transformers 5.24, and before
NO_SETS = (
    "`attention=bidirectional`: {} uses the order of items whatever their positions (ALiBi, convolutions or "
    "a mask of its own): set `attention` to causal"
)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder: a single one, or those that its index names.

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
    """Shapes of all tensors by name, read from the headers.

    Raises:
        ValueError: a header is damaged, or its file is longer or shorter than the header says.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}
        except SafetensorError as error:
            raise ValueError(f"{file.name} is cut or damaged: copy or download it again") from error
    return shapes


def read_config(folder: Path, shapes: Shapes) -> PreTrainedConfig:
    """The configuration of a model's folder. Its counts are first compared with the weights.

    Args:
        folder: of the model.
        shapes: of the tensors in the weights files, by name.

    Raises:
        ValueError: a count is too large for the weights, the model type is unknown, or a key would make the
            library load something else than the folder's weights.
    """
    settings = _read_json(folder / "config.json")
    for key, reason in REFUSED_KEYS.items():
        if settings.get(key) is not None:
            raise ValueError(f"config.json has {key}: {reason}, which this package does not read")
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"transformers has no model type {shorten(repr(model_type))}, and code in a model's folder is "
            "never run"
        )
    check_counts(settings, shapes)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"it has no {file.name}")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes: more than {MAX_CONFIG_BYTES:,}")
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return content


def check_counts(settings: dict[str, Any], shapes: Shapes) -> None:
    """Refuse counts that no weights justify: the library makes lists and layers of that length.

    Raises:
        ValueError: names the key.
    """
    n_layers = n_experts = 1
    pending: list[Any] = [settings]
    while pending:
        node = pending.pop()
        for key, value in node.items() if isinstance(node, dict) else [("", item) for item in node]:
            if isinstance(value, dict | list):
                pending.append(value)
            elif isinstance(value, int) and not isinstance(value, bool):
                if key.startswith(("n_", "num_")) and value > MAX_COUNT:
                    raise ValueError(
                        f"config.json: {shorten(key)} is {shorten(str(value))}, which is beyond any model"
                    )
                n_layers = max(n_layers, value) if "layer" in key else n_layers
                n_experts = max(n_experts, value) if "expert" in key else n_experts
                too_many_layers = n_layers > max(FREE_LAYERS, len(shapes))
                if too_many_layers or n_layers * n_experts > max(FREE_EXPERTS, len(shapes)):
                    raise ValueError(
                        f"config.json: {key} is {value}, but the weights are {len(shapes)} tensors"
                    )


def blank_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The network of a configuration on the meta device, where it takes no memory.

    Raises:
        ValueError: it is not a causal language model, or its layers lack an argument that this package needs.
    """
    if config.is_encoder_decoder:
        raise ValueError(
            f"{config.model_type} has an encoder and a decoder, and is not a causal language model"
        )
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise ValueError(f"{config.model_type} reads in both directions, and is not a causal language model")
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if model.base_model is model:
        raise ValueError(f"the layers of {config.model_type} cannot be used without its output layer")
    missing = [name for name in REQUIRED_ARGUMENTS if name not in _arguments(model)]
    if cache_argument(model) is None:
        missing.append("cache")
    if missing:
        raise ValueError(
            f"the layers of {config.model_type} take no {missing[0]}: models that keep another state than "
            "keys and values are not supported"
        )
    return model


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether the layers of a model can be told the positions of tokens."""
    return "position_ids" in _arguments(model)


def cache_argument(model: PreTrainedModel) -> str | None:
    """The name of the argument of a model's layers for cached keys and values; None if they take none."""
    return next((name for name in CACHE_ARGUMENTS if name in _arguments(model)), None)


def _arguments(model: PreTrainedModel) -> set[str]:
    """Names of the arguments of a model's layers."""
    return set(inspect.signature(type(model.base_model).forward).parameters)


def check_architecture(
    config: PreTrainedConfig, shapes: Shapes, prefix: str | None = None
) -> PreTrainedModel:
    """Check that a configuration describes the network of the weights, before memory is taken for it.

    Args:
        config: of the model.
        shapes: of the tensors in the weights files, by name.
        prefix: of the network's tensor names in a run's file, which holds all its weights. None for a
            published model: the library may rename its tensors, so that only equal names are compared.

    Returns:
        The network on the meta device.

    Raises:
        ValueError: a tensor has another shape than the configuration says, is missing or is unused, or the
            network is larger than its weights.
    """
    model = blank_model(config)
    tied = set(model.all_tied_weights_keys)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    stored = dict(shapes)
    if prefix is not None:
        stored = {
            name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)
        }
        unused, missing = sorted(set(stored) - set(expected)), sorted(set(expected) - set(stored) - tied)
        if unused or missing:
            problem = f"{unused[0]} has no use" if unused else f"{missing[0]} is missing"
            raise ValueError(f"tensor {problem} in the network that config.json describes")
    for name, shape in expected.items():
        stored_shape = stored.get(name, stored.get(name.removeprefix(f"{model.base_model_prefix}."), shape))
        if stored_shape != shape:
            raise ValueError(
                f"tensor {name} has shape {list(stored_shape)}, and config.json describes {list(shape)}"
            )
    n_stored = _n_numbers(shapes.values())
    n_parameters = _n_numbers(shape for name, shape in expected.items() if name not in tied)
    n_computed = _n_numbers(tuple(buffer.shape) for buffer in model.buffers())
    if max(n_parameters, n_computed) > 2 * n_stored + EXTRA_NUMBERS:
        raise ValueError(
            f"config.json describes {n_parameters + n_computed:,} numbers, and the weights are {n_stored:,}"
        )
    return model


def _n_numbers(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
