"""Memory of the device: what is free, what this process holds, what training will hold."""

import os
from functools import cache
from pathlib import Path

import psutil
import torch
from torch import nn

from cllm4rec.training.allocator import return_freed_memory
from cllm4rec.training.launched import n_launched_here

GIB = 2**30
# By default a process on a CPU takes this much in all: larger micro-batches gain no time there.
PROCESS_BYTES = 3.25 * GIB
GAPS = 1.1  # bytes that a process holds, as a multiple of those it needs, at which it returns freed memory
CGROUP = Path("/sys/fs/cgroup")  # of a container under Linux


def free_bytes(device: torch.device) -> int:
    """Bytes that this process may still take, of a GPU or of the machine, which processes of a node share."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = min(psutil.virtual_memory().available, _cgroup_bytes(CGROUP))
    return free // n_launched_here()


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
    return int(_process(os.getpid()).memory_info().rss)


@cache
def _process(number: int) -> psutil.Process:
    """A process; making it takes longer than asking it."""
    return psutil.Process(number)


def needed_bytes(device: torch.device) -> int:
    """Bytes that this process holds and needs: freed memory is returned first."""
    return_freed_memory()
    return held_bytes(device)


def optimiser_bytes(net: nn.Module, averaged: bool = False) -> int:
    """Bytes that training adds to the weights: gradients, Adam's two moments and the best weights.

    Moving averages of the weights come to these where they are `averaged`.
    """
    copies = 5 if averaged else 4
    return sum(copies * p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)


class FreedMemory:
    """Returns freed memory to the system before its gaps add up.

    The allocator keeps freed blocks for the next step (`allocator.py`). Micro-batches of other shapes do not
    fit into them, so that a process would grow with every new shape.

    Attributes:
        most: bytes that the process may hold after a micro-batch.
    """

    def __init__(self, device: torch.device, memory: float | None) -> None:
        """Before the first micro-batch.

        Args:
            device: of the network.
            memory: GiB that the process may take. If None, `PROCESS_BYTES` and GAPS times what it needs.
        """
        self.device, self.memory = device, memory
        self.most = PROCESS_BYTES if memory is None else memory * GIB
        self._returned = False  # in the micro-batch before

    def after_micro_batch(self) -> None:
        """Return freed memory if the process holds too much.

        What it holds after the next micro-batch is what it needs.
        """
        if self.device.type != "cpu":
            return
        held = held_bytes(self.device)
        if self._returned and self.memory is None:
            self.most = max(self.most, GAPS * held)
        self._returned = held > self.most
        if self._returned:
            return_freed_memory()
