"""Device and precision of the commands, on machines simulated by patching torch and Accelerate."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from cllm4rec.training import device
from cllm4rec.training.device import default_precision, make_accelerator, on_gpu


def test_training_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever trains makes an accelerator, in Python as in the commands."""
    calls: list[None] = []
    monkeypatch.setattr(device, "keep_freed_memory", lambda: calls.append(None))
    make_accelerator()
    assert len(calls) == 1


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of Accelerate. Without a precision it takes that of the environment, as the real one does."""
    arguments: dict[str, Any] = {}

    def accelerator(**given: Any) -> SimpleNamespace:
        arguments.update(given)
        from_environment = device.os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        precision = given["mixed_precision"] or from_environment
        return SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision=precision)

    monkeypatch.setattr(device, "Accelerator", accelerator)
    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    return arguments


def gpu(monkeypatch: pytest.MonkeyPatch, in_hardware: bool) -> None:
    """A CUDA device that computes in bf16, in hardware or by emulation."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or in_hardware
    )


@pytest.mark.parametrize(("in_hardware", "expected"), [(True, "bf16"), (False, "no")])
def test_a_gpu_trains_in_bf16_where_its_hardware_has_it(
    in_hardware: bool, expected: str, requested: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, in_hardware)
    assert make_accelerator().mixed_precision == default_precision() == expected


@pytest.mark.parametrize("given", ["no", "bf16"])
def test_the_precision_of_the_environment_overrides_that_of_the_gpu(
    given: str, requested: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, in_hardware=given == "no")  # the GPU alone would give the other precision
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", given)
    assert make_accelerator().mixed_precision == given
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="fp16 is not supported"):
        make_accelerator()


def test_a_requested_cpu_is_not_a_gpu(requested: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, True)
    assert on_gpu()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert not on_gpu()
    assert make_accelerator().mixed_precision == default_precision() == "no"


def test_a_gpu_without_double_precision_is_not_used(
    requested: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    make_accelerator()
    assert not requested["cpu"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    make_accelerator()
    assert requested["cpu"]


def test_processes_without_a_gpu_are_asked_to_run_on_the_cpu(
    requested: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate takes each for the only process otherwise."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    make_accelerator()
    assert requested["cpu"]


def test_the_commands_refuse_to_train_sharded_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ValueError, match="FSDP"):
        make_accelerator()


@pytest.mark.parametrize("precision", ["fp16", "BF16", "fp8"])
def test_the_commands_refuse_other_precisions(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its losses would have to be scaled."""
    monkeypatch.setattr(Accelerator, "mixed_precision", precision)
    with pytest.raises(ValueError, match=f"{precision} is not supported"):
        make_accelerator()
