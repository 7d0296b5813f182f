"""Freed memory is returned before its gaps add up, and kept otherwise."""

import pytest
import torch

from cllm4rec.training import memory
from cllm4rec.training.memory import GIB, FreedMemory


class Process:
    """Stands in for the process: what it holds, of which a part is freed and kept by the allocator."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, needed: float) -> None:
        self.needed, self.kept, self.returns = needed, 0.0, 0
        monkeypatch.setattr(memory, "held_bytes", lambda device: int((self.needed + self.kept) * GIB))
        monkeypatch.setattr(memory, "return_freed_memory", self._return)

    def _return(self) -> None:
        self.kept, self.returns = 0.0, self.returns + 1


def test_a_growing_process_returns_what_it_has_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    process, freed = Process(monkeypatch, needed=1.0), FreedMemory(torch.device("cpu"), None)
    held = []
    for _ in range(20):
        process.kept += 0.5
        freed.after_micro_batch(divided=False)
        held.append(process.needed + process.kept)
    assert max(held) <= memory.PROCESS_BYTES / GIB
    assert process.returns == 4, "each five micro-batches"


def test_a_process_that_needs_more_returns_only_its_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large dataset is held all the time: returning memory after every micro-batch would cost time."""
    process, freed = Process(monkeypatch, needed=8.0), FreedMemory(torch.device("cpu"), 4.0)
    freed.after_micro_batch(divided=False)
    assert process.returns == 1
    for kept in (1.0, 1.9, 2.1):
        process.kept = kept
        freed.after_micro_batch(divided=False)
    assert process.returns == 2, "above 1.25 times of what it needs"


def test_a_divided_step_returns_it_always_and_a_gpu_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch, needed=1.0)
    FreedMemory(torch.device("cpu"), None).after_micro_batch(divided=True)
    assert process.returns == 1
    process.needed = 100.0
    FreedMemory(torch.device("cuda"), None).after_micro_batch(divided=False)
    assert process.returns == 1
