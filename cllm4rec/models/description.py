"""The type of model.json, and checks of the arrays in model.safetensors."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NotRequired

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from cllm4rec.corpora.documents import DocumentTokens
from cllm4rec.files.schema import STRICT, Scalar
from cllm4rec.messages import error_line

FORMAT_VERSION = 6
Shapes = Mapping[str, tuple[int, ...]]  # of the arrays in a weights file, by name


class ModelDescription(TypedDict):
    """Content of model.json.

    Attributes:
        format_version: `FORMAT_VERSION`.
        system: key in `SYSTEMS`.
        config: its settings.
        stage: the last stage trained, of a network.
        scales: factors of the token and ID embeddings, of a system on a language model.
        templates: wording of the prompts of training by name, of a system on a language model.
        document: tokens with which documents of training begin and end, of a system on a language model.
        backbone_sha256, config_sha256, tokenizer_sha256: of the weights, configuration and tokenizer of a
            frozen backbone, which the run does not hold.
        backbone_commit: of the backbone's repository at the hub, if it comes from there.
        sequential: name of the sequential recommender of RSLLM.
        form: of the prompts of RSLLM: unified, text or ids.
    """

    __pydantic_config__ = STRICT  # type: ignore[misc]

    format_version: int
    system: str
    config: dict[str, Scalar]
    stage: NotRequired[str | None]
    scales: NotRequired[tuple[float, float]]
    templates: NotRequired[dict[str, str]]
    document: NotRequired[DocumentTokens]
    backbone_sha256: NotRequired[str]
    config_sha256: NotRequired[str]
    tokenizer_sha256: NotRequired[str]
    backbone_commit: NotRequired[str]
    sequential: NotRequired[str]
    form: NotRequired[str]


def checked_array(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], *dtypes: Any
) -> np.ndarray:
    """An array of model.safetensors, checked.

    Args:
        arrays: all arrays of the file.
        name: of the array.
        shape: its expected shape; None for a dimension of any length.
        dtypes: the types that it may have.

    Raises:
        ValueError: it is missing, or of another shape or type.
    """
    if name not in arrays:
        raise ValueError(f"model.safetensors does not fit this system: {name} is missing")
    array = arrays[name]
    same_shape = len(array.shape) == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    if not same_shape or array.dtype not in dtypes:
        need = f"{np.dtype(dtypes[0])} {['any' if length is None else length for length in shape]}"
        raise ValueError(
            f"model.safetensors does not fit this system: {name} is {array.dtype} {list(array.shape)}, "
            f"not {need}"
        )
    return array


def check_names(arrays: Mapping[str, np.ndarray], weights: Collection[str], buffers: Collection[str]) -> None:
    """Raise ValueError unless model.safetensors has these names, and weights of a single type."""
    if {*weights, *buffers} != set(arrays):
        name = sorted({*weights, *buffers} ^ set(arrays))[0]
        side = "file" if name in arrays else "network"
        raise ValueError(f"model.safetensors does not fit this system: {name} is only in the {side}")
    if len({arrays[name].dtype for name in weights}) > 1:
        raise ValueError("model.safetensors does not fit this system: its numbers are of several types")


def restore_arrays(
    weights: Mapping[str, nn.Parameter], buffers: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]
) -> None:
    """Give weights and fitted buffers the arrays of model.safetensors, without a copy.

    A large table stays on disk until it is read.

    Raises:
        ValueError: the arrays do not fit.
    """
    check_names(arrays, weights.keys(), buffers.keys())
    for name, buffer in buffers.items():
        checked = checked_array(arrays, name, tuple(buffer.shape), buffer.numpy().dtype)
        buffer.data = torch.from_numpy(checked)
    for name, parameter in weights.items():
        array = checked_array(arrays, name, tuple(parameter.shape), np.float32, np.float64)
        parameter.data = torch.from_numpy(array)


def check_layers(n_layers: int, shapes: Shapes) -> None:
    """Refuse a network that is larger than its weights before it is built.

    Raises:
        ValueError: it has more layers than its file has arrays.
    """
    if n_layers > len(shapes):
        raise ValueError(
            f"model.json: {n_layers:,} layers do not fit the {len(shapes):,} arrays of model.safetensors"
        )


def check_shapes(build: Callable[[], nn.Module], shapes: Shapes) -> None:
    """Compare the parameters of a network with the arrays of its file.

    Args:
        build: makes the network. It is called on the device `meta`, where it takes no memory.
        shapes: of the arrays in model.safetensors, by name.

    Raises:
        ValueError: a parameter is missing in the file, or of another shape there.
    """
    try:
        with torch.device("meta"):
            parameters = dict(build().named_parameters())
    except RuntimeError as error:  # a size exceeds 64 bits
        raise ValueError(f"model.json: its sizes do not fit this system: {error_line(error)}") from error
    for name, parameter in parameters.items():
        if shapes.get(name) != tuple(parameter.shape):
            stored = f"{list(shapes[name])}" if name in shapes else "missing"
            raise ValueError(
                f"model.safetensors does not fit this system: {name} is {stored}, not {list(parameter.shape)}"
            )
