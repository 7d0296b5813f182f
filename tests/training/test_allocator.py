"""What libraries keep: products of ever new shapes do not make the process grow."""

import os
import subprocess
import sys

import pytest

from cllm4rec.training.allocator import KERNEL_CACHES, limit_kernel_caches

PRODUCTS = """
import psutil, torch
from cllm4rec.training.allocator import limit_kernel_caches, return_freed_memory
limit_kernel_caches()
held = []
weight, inputs = torch.ones(256, 64, dtype=torch.bfloat16), torch.ones(2048, 64, dtype=torch.bfloat16)
for n in range(64, 364):
    torch.nn.functional.linear(inputs[:n], weight)
    return_freed_memory()
    held.append(psutil.Process().memory_info().rss / 2**20)
print(held[-1] - held[100])
"""


def test_variables_that_are_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KERNEL_CACHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(KERNEL_CACHES[0], "7")
    limit_kernel_caches()
    assert [os.environ[name] for name in KERNEL_CACHES] == ["7", "64"]


def test_products_of_new_shapes_keep_few_kernels() -> None:
    """Where bfloat16 products have kernels, 200 of them would take some 100 MiB."""
    environment = {name: value for name, value in os.environ.items() if name not in KERNEL_CACHES}
    command = [sys.executable, "-c", PRODUCTS]
    grown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert float(grown) < 30
