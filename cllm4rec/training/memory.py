"""Memory of the device: what is free, what this process holds, what training will hold."""

import os
from pathlib import Path

import psutil
import torch
from torch import nn

from cllm4rec.training.allocator import return_freed_memory

GIB = 2**30
# By default a process on a CPU takes this much in all: larger micro-batches gain no time there.
PROCESS_BYTES = 3.25 * GIB
GAPS = 1.25  # bytes that the process holds to those it needs: then freed memory is returned
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


class FreedMemory:
    """Returns freed memory to the system before its gaps add up.

    The allocator keeps freed blocks for the next step (`allocator.py`). Micro-batches of other shapes do not
    fit into them, so that a process would grow with every new shape.
    """

    def __init__(self, device: torch.device, memory: float | None) -> None:
        """Before the first micro-batch.

        Args:
            device: of the network.
            memory: GiB that the process may take; `PROCESS_BYTES` if None.
        """
        self.device, self.most = device, PROCESS_BYTES if memory is None else memory * GIB

    def after_micro_batch(self, divided: bool) -> None:
        """Return freed memory if the process holds too much.

        Args:
            divided: whether the step was divided for its memory. Then it is always returned.
        """
        if divided or (self.device.type == "cpu" and held_bytes(self.device) > self.most):
            return_freed_memory()
            self.most = max(self.most, GAPS * held_bytes(self.device))
