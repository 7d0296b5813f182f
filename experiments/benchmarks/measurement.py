"""Measurement of time and memory: median wall times, and extra memory of a function in a new process."""

import multiprocessing
import os
import re
import statistics
import time
import unittest.mock
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

EAGER_RELEASE = {
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}  # bytes; read by glibc


def side_by_side(
    functions: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median time of each function in seconds; a first call of each is not counted.

    The functions are called in turn, so that other work on the machine slows all of them alike.

    Args:
        functions: by name.
        repeats: calls that are counted.
        clock: gives seconds: wall time by default, or CPU time (`time.process_time`).
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if repeat:
                times[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def synchronised(function: Callable[[], object]) -> Callable[[], object]:
    """The function, followed by a wait for the work of the GPU, if there is one."""

    def run() -> None:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def process_memory(field: str) -> float:
    """Memory of this process in MiB: VmRSS (now), VmHWM (peak) or RssAnon (now, without mapped files)."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def extra_memory(prepare: Callable[..., Callable[[], object]], *arguments: Any, threads: int = 1) -> float:
    """Peak MiB while the function that `prepare(*arguments)` returns runs, beyond what is held before.

    Runs in a new process that releases freed memory at once, as what the allocator keeps varies.
    """
    with (
        unittest.mock.patch.dict(os.environ, EAGER_RELEASE),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(_extra_memory, prepare, arguments, threads).result()


def _extra_memory(
    prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], threads: int
) -> float:
    torch.set_num_threads(threads)
    function = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = process_memory("VmRSS")
    function()
    return process_memory("VmHWM") - before
