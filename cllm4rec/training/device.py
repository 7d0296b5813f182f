"""The device and the precision that training and scoring run in."""

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType, parse_flag_from_env

PRECISIONS = ("no", "bf16")  # for fp16 the losses would have to be scaled


def on_gpu() -> bool:
    """Whether models are trained and read on a CUDA device: there is one, and ACCELERATE_USE_CPU does not say otherwise."""
    return torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")


def default_precision() -> str:
    """The precision of training where ACCELERATE_MIXED_PRECISION, which launchers set, names none: bf16 on a GPU whose hardware
    has it."""
    return "bf16" if on_gpu() and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def make_accelerator() -> Accelerator:
    """Accelerate as its launcher set it up; without a launcher in `default_precision`.

    Raises:
        ValueError: it was set up to shard the weights (FSDP), which the loop cannot validate, keep and save as yet, or for
            a precision that is neither no nor bf16.
    """
    alternating = DistributedDataParallelKwargs(
        find_unused_parameters=True
    )  # objectives leave each other's table unused
    precision = None if "ACCELERATE_MIXED_PRECISION" in os.environ else default_precision()
    no_float64 = (
        torch.backends.mps.is_available()
    )  # Apple's GPUs, on which numbers of processes could not be summed
    accelerator = Accelerator(mixed_precision=precision, cpu=no_float64, kwargs_handlers=[alternating])
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            "weights sharded by Accelerate's FSDP cannot be trained yet: launch with distributed_type MULTI_GPU"
        )
    if accelerator.mixed_precision not in PRECISIONS:
        raise ValueError(
            f"mixed precision {accelerator.mixed_precision} is not supported: launch with {' or '.join(PRECISIONS)}"
        )
    return accelerator
