"""The processes that torchrun or `accelerate launch` started, as the launcher numbers them."""

import os


def n_launched() -> int:
    """Number of processes, this one included."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def n_launched_here() -> int:
    """Number of processes on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def is_main_process() -> bool:
    """Whether this is the first, or the only, process."""
    return int(os.environ.get("RANK") or 0) == 0
