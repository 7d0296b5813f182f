"""Gradient checkpointing: layers are computed again in the backward pass, and keep their input alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(net: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Checkpoint the decoder layers of a Hugging Face model within the block.

    The library's own switch acts in training mode only, in which dropout would act in frozen layers.
    """
    layers = checkpointable_layers(net) if enabled else []
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # that of the class again


def checkpointable_layers(net: nn.Module) -> list[nn.Module]:
    """The layers of a network that can be checkpointed."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # takes seconds to import

    return [module for module in net.modules() if isinstance(module, GradientCheckpointingLayer)]
