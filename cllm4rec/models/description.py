"""The type of model.json, and checks of the arrays in model.safetensors."""

from collections.abc import Callable, Mapping
from typing import Any, NotRequired

import numpy as np
import torch
from torch import nn
from typing_extensions import TypedDict

from cllm4rec.files.schema import STRICT, Scalar
from cllm4rec.messages import error_line

FORMAT_VERSION = 2


class ModelDescription(TypedDict):
    """model.json. `stage` belongs to networks, the rest to systems on a language model.

    `templates` has the wording of the prompts that the system was trained with, by name.
    The SHA-256 are those of a backbone that the run does not hold: of its weights, configuration and tokenizer.
    """

    __pydantic_config__ = STRICT  # type: ignore[misc]

    format_version: int
    system: str
    config: dict[str, Scalar]
    stage: NotRequired[str | None]
    scales: NotRequired[tuple[float, float]]
    templates: NotRequired[dict[str, str]]
    backbone_sha256: NotRequired[str]
    config_sha256: NotRequired[str]
    tokenizer_sha256: NotRequired[str]
    sequential: NotRequired[str]


def checked_array(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], *kinds: Any
) -> np.ndarray:
    """An array of model.safetensors.

    Args:
        arrays: all arrays of the file.
        name: which one.
        shape: its expected shape; None for a length that may be any.
        kinds: the types of numbers that it may have.

    Raises:
        ValueError: it is missing, or of another shape or type.
    """
    if name not in arrays:
        raise ValueError(f"model.safetensors does not fit this system: {name} is missing")
    found = arrays[name]
    fits = len(found.shape) == len(shape) and all(
        n in (None, m) for n, m in zip(shape, found.shape, strict=True)
    )
    if not fits or found.dtype not in kinds:
        need = f"{np.dtype(kinds[0])} {['any' if n is None else n for n in shape]}"
        raise ValueError(
            f"model.safetensors does not fit this system: {name} is {found.dtype} {list(found.shape)}, not {need}"
        )
    return found


def check_layers(n_layers: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a network has more layers than its file has arrays, so that it is not built for nothing."""
    if n_layers > len(shapes):
        raise ValueError(
            f"model.json: {n_layers:,} layers do not fit the {len(shapes):,} arrays of model.safetensors"
        )


def check_shapes(build: Callable[[], nn.Module], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a parameter of a network is not an array of its file.

    Args:
        build: makes the network; it is called on the device `meta`, where it takes no memory.
        shapes: of the arrays in model.safetensors, by name.
    """
    try:
        with torch.device("meta"):
            parameters = dict(build().named_parameters())
    except RuntimeError as error:  # a size beyond 64 bits
        raise ValueError(f"model.json: its sizes do not fit this system: {error_line(error)}") from error
    for name, parameter in parameters.items():
        if shapes.get(name) != tuple(parameter.shape):
            there = f"{list(shapes[name])}" if name in shapes else "missing"
            raise ValueError(
                f"model.safetensors does not fit this system: {name} is {there}, not {list(parameter.shape)}"
            )
