"""Modules with numbers that are fitted, not trained."""

from hashlib import sha256

import torch
from torch import Tensor, nn


class FittedModule(nn.Module):
    """A module whose buffers were fitted before or after training. model.safetensors holds them too."""


def entries_of(starts: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of some rows of a matrix in compressed rows, row after row.

    Args:
        starts: int64 (n + 1,), first entry of each row, and the number of entries.
        rows: int64 (R,).

    Returns:
        Indices of the entries (E,), and how many each row has (R,).
    """
    first, counts = starts[rows], starts[rows + 1] - starts[rows]
    shift = first - (counts.cumsum(0) - counts)
    entries = torch.arange(int(counts.sum()), device=rows.device) + shift.repeat_interleave(counts)
    return entries, counts


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
