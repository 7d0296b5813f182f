"""Low-rank adapters on the linear layers of a frozen backbone (Hu et al., "LoRA", 2021), in PEFT's format."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from cllm4rec.files.schema import json_text, read_json
from cllm4rec.messages import escaped, shorten
from cllm4rec.models.language.silence import quiet

LORA_RANK = 16
NAME = "default"  # of the adapters in the network; PEFT's files leave it out
FILE_PREFIX = "base_model.model."  # of the names in PEFT's files
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
REQUIRED_KEYS = ("peft_type", "r", "lora_alpha", "target_modules")  # of the configuration
# These say where the adapters come from. They change nothing, and nothing is read from there.
DESCRIPTIVE_KEYS = ("base_model_name_or_path", "revision", "peft_version", "inference_mode")


class AdapterMatrix(nn.Module):
    """A matrix A or B of an adapter: float32, and multiplied in the type of its inputs.

    In bfloat16 the inputs of a layer need not be copied to float32 for its adapter.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Products (..., out) with inputs (..., in)."""
        return functional.linear(inputs, self.weight.to(inputs.dtype))


def add_adapters(model: PreTrainedModel) -> None:
    """Add trainable low-rank adapters to all linear layers but the output layer. They are zero maps.

    Weights that are no layer of their own, such as the experts of Mixtral, get none: PEFT would build a
    matrix of their full size in each forward pass.

    Raises:
        ValueError: peft is not installed.
    """
    check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=_linear_layers(model), task_type="CAUSAL_LM"
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, model, NAME)
    for layer in adapter_layers(model).values():
        layer.cast_input_dtype_enabled = False
        for matrices in (layer.lora_A, layer.lora_B):
            matrices[NAME] = AdapterMatrix(matrices[NAME].weight)


def check_peft() -> None:
    """Raise ValueError unless peft is installed."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError(
            "adapters need peft, which is not installed: pip install peft (extra cllm4rec[lora])"
        )


def draw_adapters(model: PreTrainedModel, seed: int) -> None:
    """Draw the initial weights of all adapters: A at random, B zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in adapter_layers(model).values():
            layer.reset_lora_parameters(NAME, True)


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers without the output layer, sorted."""
    output = model.get_output_embeddings()
    return sorted(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not output
    )


def adapter_layers(model: PreTrainedModel) -> dict[str, Any]:
    """The layers with adapters, by name: objects of PEFT's class `LoraLayer`."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The weights of all adapters, by their names in PEFT's files."""
    return {
        f"{FILE_PREFIX}{name}.{side}.weight": matrices[NAME].weight
        for name, layer in adapter_layers(model).items()
        for side, matrices in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
    }


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the adapters to the weights that they adapt. Their matrices are kept."""
    with torch.no_grad():
        for layer in adapter_layers(model).values():
            if not layer.merged:
                layer.merge()


def are_merged(model: PreTrainedModel) -> bool:
    """Whether the adapters are merged into the weights."""
    return any(layer.merged for layer in adapter_layers(model).values())


def unmerge_adapters(model: PreTrainedModel, frozen: PreTrainedModel) -> None:
    """Undo `merge_adapters` bit for bit, which subtraction would not do.

    Args:
        model: with merged adapters.
        frozen: the same model with the weights of before. They are moved, not copied.
    """
    layers = adapter_layers(model)
    for name, before in adapter_layers(frozen).items():
        layer = layers[name]
        merged = layer.get_base_layer().weight
        merged.data = before.get_base_layer().weight.data.to(merged.device)
        layer.merged_adapters.clear()


def write_adapter_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write the weights of the adapters into a folder as PEFT does."""
    folder.mkdir(exist_ok=True)
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in _weights(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def write_adapter_config(
    model: PreTrainedModel, folder: Path, backbone: str, revision: str | None = None
) -> None:
    """Write the configuration of the adapters into a folder as PEFT does. It names the backbone."""
    folder.mkdir(exist_ok=True)
    origin = {"base_model_name_or_path": backbone, "revision": revision}
    settings = _settings(model) | origin | {"inference_mode": True}
    (folder / CONFIG).write_text(json_text(settings), "utf-8")


def _settings(model: PreTrainedModel) -> dict[str, Any]:
    """The content of adapter_config.json."""
    configs: Any = model.peft_config
    settings = configs[NAME].to_dict() | {"target_modules": sorted(adapter_layers(model))}
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    decoded: dict[str, Any] = json.loads(json.dumps(values))  # lists for tuples, strings for enumerations
    return decoded


def read_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Fill the adapters of a model from a folder that is not trusted. PEFT itself reads nothing of it.

    Raises:
        ValueError: a file is missing, or does not fit the model and its settings.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing; other formats are not read")
    _check_config(read_json(folder / CONFIG, dict[str, Any]), _settings(model))
    weights = _weights(model)
    _check_tensors(folder / WEIGHTS, weights)
    for name, tensor in load_file(folder / WEIGHTS).items():  # mapped: read on access
        weights[name].data = tensor


def _check_config(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare adapter_config.json with the settings of the network.

    Keys that an older version of peft did not write may lack; those of a newer one may be empty.

    Raises:
        ValueError: names the key that differs, with its value.
    """
    for key in (*REQUIRED_KEYS, *settings):
        value, needed = settings.get(key), expected.get(key)
        if key in DESCRIPTIVE_KEYS or value == needed or (key not in expected and not value):
            continue
        if key == "target_modules" and isinstance(value, list):
            differing = {str(name) for name in value} ^ set(needed or ())
            detail = f"differs in {shorten(escaped(repr(min(differing, default='order'))))}"
        else:
            detail = f"is {shorten(escaped(repr(value)))}, not {shorten(repr(needed))}"
        raise ValueError(f"{CONFIG}: {shorten(escaped(key))} {detail}")


def _check_tensors(file: Path, weights: dict[str, nn.Parameter]) -> None:
    """Compare the header of the weights file with the network.

    Raises:
        ValueError: a tensor is missing, has no use, or is of another shape or type.
    """
    with safe_open(file, framework="pt") as opened:
        stored = {name: opened.get_slice(name) for name in opened.keys()}
        for name in sorted(weights.keys() | stored.keys()):
            if name not in stored or name not in weights:
                problem = "lacks" if name not in stored else "has an unknown tensor"
                raise ValueError(f"{WEIGHTS} {problem} {name}")
            shape, needed = stored[name].get_shape(), list(weights[name].shape)
            kind = stored[name].get_dtype()
            if shape != needed or kind != "F32":
                raise ValueError(f"{WEIGHTS}: {kind} {shape}, not F32 {needed}: {name}")
