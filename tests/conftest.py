"""What all tests share: one thread, no network, the place of the shared data."""

import os
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
SHARED = Path(os.environ.get("CLLM4REC_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two OpenMP threads stall each other when a core is busy."""
    torch.set_num_threads(1)


@pytest.fixture
def shared() -> Path:
    """Folder of real data and small backbones; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared data")
    return SHARED
