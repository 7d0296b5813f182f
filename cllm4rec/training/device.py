"""The device of training and scoring, and the precision of products."""

import os
from importlib import import_module

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType, parse_flag_from_env

from cllm4rec.training.allocator import keep_freed_memory, limit_kernel_caches
from cllm4rec.training.launched import n_launched

PRECISIONS = ("no", "bf16")  # fp16 would need loss scaling


def on_gpu() -> bool:
    """Whether models run on a CUDA device: there is one, and ACCELERATE_USE_CPU is not set."""
    return torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")


def multiplies_bf16(device_type: str) -> bool:
    """Whether the hardware multiplies matrices in bf16: a CPU does by AVX-512 BF16 or AMX.

    Args:
        device_type: cuda or cpu; others do not.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch offers these two questions under no public name
    avx512, amx = torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported
    return device_type == "cpu" and (avx512() or amx())


def frozen_dtype() -> torch.dtype:
    """The dtype of frozen weights: bfloat16 where the device multiplies in it, else float32."""
    return torch.bfloat16 if multiplies_bf16("cuda" if on_gpu() else "cpu") else torch.float32


def default_precision() -> str:
    """Precision where ACCELERATE_MIXED_PRECISION, which launchers set, is absent.

    It is bf16 on a GPU that multiplies in it, else "no". On a CPU it stays "no": small networks gain
    little, and their training would change with the CPU. Frozen weights are held in bf16 without it.
    """
    return "bf16" if on_gpu() and multiplies_bf16("cuda") else "no"


def make_accelerator() -> Accelerator:
    """An Accelerator as its launcher configured it; without a launcher, in `default_precision`.

    For the whole process from now on, freed memory is kept and few kernels are (`allocator.py`). Attention on
    a GPU does not use cuDNN, which plans anew for every shape of a batch. That takes longer than a step.

    Raises:
        ValueError: it is configured to shard the weights (FSDP), which the loop can neither validate nor
            save, or for a precision other than no and bf16.
    """
    keep_freed_memory()
    limit_kernel_caches()
    torch.backends.cuda.enable_cudnn_sdp(False)
    # objectives alternate, and each leaves the tables of the others unused
    alternating = DistributedDataParallelKwargs(find_unused_parameters=True)
    precision = None if "ACCELERATE_MIXED_PRECISION" in os.environ else default_precision()
    # Apple's GPUs have no float64, in which the processes sum their counts. Without a GPU, Accelerate takes
    # each of several processes for the only one, unless it is told that they are to run on the CPU.
    on_cpu = torch.backends.mps.is_available() or not torch.accelerator.is_available()
    if n_launched() > 1:
        # Its functions hold the group that exists when it is first imported, so that the threads of the group
        # outlive `destroy_process_group`. Here it finds none.
        import_module("torch.distributed.nn.functional")
    accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu, kwargs_handlers=[alternating])
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            "weights sharded by Accelerate's FSDP cannot be trained yet: launch with distributed_type "
            "MULTI_GPU"
        )
    if accelerator.mixed_precision not in PRECISIONS:
        raise ValueError(
            f"mixed precision {accelerator.mixed_precision} is not supported: launch with "
            f"{' or '.join(PRECISIONS)}"
        )
    return accelerator


def wait_for_everyone(accelerator: Accelerator) -> None:
    """Wait until all processes have called this.

    Accelerate's own function addresses a GPU for each process, also where processes run on CPUs. It fails if
    there are fewer GPUs than processes.
    """
    accelerator.reduce(torch.zeros(1, device=accelerator.device)).item()
