"""What the benchmarks share: timing side by side, extra memory, rows with a target, a table and JSON."""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import time
import unittest.mock
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars
import torch

from experiments.commands import show, table

GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # bytes; read by glibc
VERSIONS_OF = ("torch", "transformers", "numpy", "polars")


@dataclass(frozen=True)
class Row:
    """One question: what was measured, of ours and of what it is compared with, and the number that has a target; None where
    it was not run."""

    question: str
    ours: str
    comparator: str
    value: float | None
    target: float
    at_most: bool
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return bool(self.value <= self.target if self.at_most else self.value >= self.target)


@dataclass(frozen=True)
class Settings:
    """How large, and where to write and read."""

    output: Path
    short: bool
    shared: Path
    threads: int


def commit() -> str:
    """Of the checkout that this file lies in, with + where it was changed since; none if it is no checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "describe", "--always", "--abbrev=12", "--dirty=+"], capture_output=True, text=True)
    except FileNotFoundError:
        return "none"
    return found.stdout.strip() or "none"


def machine(threads: int) -> dict[str, Any]:
    """What the figures hang on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    found = re.search(r"model name\s*: (.*)", info)
    return {
        "processor": found[1] if found else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": threads,
        "threads of Polars": polars.thread_pool_size(),
        "commit": commit(),
        "dtype": "float32, where a question names no other",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONS_OF},
    }


def side_by_side(functions: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median wall time in seconds of each, called in turn so that other work on the machine meets all alike; a first call of
    each is not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if repeat:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(own) for name, own in times.items()}


def synchronised(function: Callable[[], object]) -> Callable[[], object]:
    """The function, which has only ended when a GPU, if there is one, has done its work."""

    def run() -> None:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def _memory(what: str) -> float:
    """MiB of this process: VmRSS now, or VmHWM at most so far."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _child(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], threads: int) -> float:
    torch.set_num_threads(threads)
    function = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _memory("VmRSS")
    function()
    return _memory("VmHWM") - before


def extra_memory(prepare: Callable[..., Callable[[], object]], *arguments: Any, threads: int = 1) -> float:
    """Peak MiB beyond what `prepare(*arguments)` holds, while the function that it returns runs; in a process of its own, which
    gives back at once what it frees: what the allocator keeps differs from run to run."""
    with (
        unittest.mock.patch.dict(os.environ, GIVEN_BACK),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(_child, prepare, arguments, threads).result()


def report(name: str, rows: list[Row], settings: Settings) -> list[Row]:
    """Print the table and write it as JSON."""
    lines = [
        [
            row.question,
            row.ours,
            row.comparator,
            "" if row.value is None else f"{row.value:.3g}",
            f"{'at most' if row.at_most else 'at least'} {row.target:g}",
            {True: "met", False: "MISSED", None: "not run"}[row.met],
        ]
        for row in rows
    ]
    show(f"\n{name}\n\n{table(['question', 'ours', 'comparator', 'value', 'target', ''], lines)}")
    settings.output.mkdir(parents=True, exist_ok=True)
    written = {
        "machine": machine(settings.threads),
        "short": settings.short,
        "rows": [asdict(row) | {"met": row.met} for row in rows],
    }
    (settings.output / f"{name}.json").write_text(json.dumps(written, indent=2) + "\n")
    return rows


def settings(description: str | None) -> Settings:
    """From the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--short", action="store_true", help="smaller sizes")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("CLLM4REC_SHARED", "../shared")))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return Settings(given.output, given.short, given.shared, given.threads)
