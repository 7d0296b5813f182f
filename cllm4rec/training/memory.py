"""Memory of the device: what is free, what this process holds, what training will hold."""

import os
from pathlib import Path

import psutil
import torch
from torch import nn

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")  # of a container under Linux


def free_bytes(device: torch.device) -> int:
    """Bytes that this process may still take, of a GPU or of the machine, which processes of a node share."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = min(psutil.virtual_memory().available, _cgroup_bytes(CGROUP))
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _cgroup_bytes(folder: Path) -> int:
    """Bytes that the memory limit of a container leaves, where cached files count as free."""
    limit_file = folder / "memory.max"
    limit = limit_file.read_text().strip() if limit_file.is_file() else "max"
    if limit == "max":
        return int(psutil.virtual_memory().total)
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    used = int((folder / "memory.current").read_text()) - int(statistics["inactive_file"])
    return max(0, int(limit) - used)


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds now: on a GPU its tensors, else all."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def optimiser_bytes(net: nn.Module) -> int:
    """Bytes that training adds to the weights: gradients, Adam's two moments and the best weights."""
    return sum(4 * p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)
