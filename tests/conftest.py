"""What all tests share: one thread, no network, no code of models' folders, the folder of shared data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # what is equal to the bit on a CPU is not on a GPU
SHARED = Path(os.environ.get("CLLM4REC_SHARED", Path(__file__).parents[2] / "shared"))
LOADERS = (
    (AutoConfig, "from_pretrained"),
    (AutoTokenizer, "from_pretrained"),
    (AutoModelForCausalLM, "from_pretrained"),
    (AutoModelForCausalLM, "from_config"),
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two OpenMP threads stall each other when a core is busy."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def no_foreign_code() -> Iterator[None]:
    """Every load says trust_remote_code=False, and nothing is unpickled.

    Without that argument the library asks on standard input.
    """

    def guarded(load: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **settings: Any) -> Any:
            assert settings.get("trust_remote_code") is False, "load with trust_remote_code=False"
            return load(*arguments, **settings)

        return checked

    def unpickled(*_: Any, **__: Any) -> None:
        raise AssertionError("something is unpickled")

    with pytest.MonkeyPatch.context() as patch:
        for loader, name in LOADERS:
            patch.setattr(loader, name, guarded(getattr(loader, name)))
        patch.setattr(torch, "load", unpickled)
        yield


@pytest.fixture
def shared() -> Path:
    """Folder of real data and small backbones; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no shared data")
    return SHARED


@pytest.fixture
def gemma() -> Path:
    """Folder of Gemma 3 270M; tests that need it are skipped where CLLM4REC_GEMMA does not name it."""
    if "CLLM4REC_GEMMA" not in os.environ:
        pytest.skip("no Gemma")
    return Path(os.environ["CLLM4REC_GEMMA"])
