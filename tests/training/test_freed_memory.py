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
        freed.after_micro_batch()
        held.append(process.needed + process.kept)
    assert max(held) <= memory.PROCESS_BYTES / GIB
    assert process.returns == 4, "each five micro-batches"


def test_a_process_that_needs_more_returns_only_its_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole batches of a small network: returning their memory after every step would cost time."""
    process, freed = Process(monkeypatch, needed=1.0), FreedMemory(torch.device("cpu"), None)
    for _ in range(50):
        process.kept = max(process.kept, 3.0)  # the blocks of a batch
        freed.after_micro_batch()
    assert process.returns == 1
    process.kept = 3.5
    freed.after_micro_batch()
    assert process.returns == 2, "above 1.1 times of what it needs"


def test_a_limit_that_was_given_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    process, freed = Process(monkeypatch, needed=1.9), FreedMemory(torch.device("cpu"), 2.0)
    for _ in range(3):
        process.kept = 0.2
        freed.after_micro_batch()
        assert process.kept == 0
    assert process.returns == 3


def test_a_gpu_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch, needed=100.0)
    FreedMemory(torch.device("cuda"), None).after_micro_batch()
    assert process.returns == 0
