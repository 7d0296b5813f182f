"""Modules with numbers that are fitted before training and stay as they are."""

from hashlib import sha256

from torch import Tensor, nn


class FittedModule(nn.Module):
    """A module whose buffers were fitted before training. model.safetensors holds them too."""


def fitted_buffers(net: nn.Module) -> dict[str, Tensor]:
    """The buffers of the fitted modules of a network, by name."""
    return {
        f"{name}.{buffer}": value
        for name, module in net.named_modules()
        if isinstance(module, FittedModule)
        for buffer, value in module.named_buffers()
    }


def fitted_sha256(net: nn.Module) -> str | None:
    """SHA-256 of the fitted buffers of a network; None if it has none."""
    digest, buffers = sha256(), fitted_buffers(net)
    for name, value in sorted(buffers.items()):
        digest.update(f"{name} {list(value.shape)} ".encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest() if buffers else None
