"""Results of the benchmarks: rows with a target, printed as a table and written as JSON; and the flags."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars
import torch

from cllm4rec.commands.entry import say
from experiments.commands import argument_parser
from experiments.report import markdown_table

LIBRARIES = ("torch", "transformers", "numpy", "polars")
VERDICTS = {True: "met", False: "MISSED", None: "not run"}


@dataclass(frozen=True)
class Row:
    """The result of one question.

    Attributes:
        question: what is measured.
        measured: the figures of this package.
        comparator: the figures of what it is compared with.
        value: the number that has a target; None if not run.
        target: its bound.
        at_most: whether the target is an upper bound.
        details: further figures, for the JSON file.
    """

    question: str
    measured: str
    comparator: str
    value: float | None
    target: float
    at_most: bool
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the value meets the target; None if not run."""
        if self.value is None:
            return None
        return bool(self.value <= self.target if self.at_most else self.value >= self.target)

    @property
    def cells(self) -> list[str]:
        """The row of the printed table."""
        value = "" if self.value is None else f"{self.value:.3g}"
        target = f"{'at most' if self.at_most else 'at least'} {self.target:g}"
        return [self.question, self.measured, self.comparator, value, target, VERDICTS[self.met]]


@dataclass(frozen=True)
class Settings:
    """The flags of a benchmark.

    Attributes:
        output: folder of the JSON files.
        short: whether sizes are reduced.
        datasets: folder of the folders that recipes wrote.
        threads: of torch.
    """

    output: Path
    short: bool
    datasets: Path
    threads: int


def parse_settings(description: str | None) -> Settings:
    """Settings from the command line; sets the number of torch's threads."""
    return settings_from(settings_parser(description).parse_args())


def settings_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the flags of `Settings`, to which a benchmark may add its own."""
    parser = argument_parser(description)
    parser.add_argument("--output", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument(
        "--datasets", type=Path, default=Path("datasets"), help="folder of beauty and ml-1m, made by recipes"
    )
    parser.add_argument("--short", action="store_true", help="smaller sizes")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    return parser


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed flags; sets the number of torch's threads.

    Raises:
        SystemExit: there is less than one thread.
    """
    if arguments.threads < 1:
        raise SystemExit(f"error: --threads {arguments.threads}: give at least 1")
    torch.set_num_threads(arguments.threads)
    return Settings(arguments.output, arguments.short, arguments.datasets, arguments.threads)


def report(name: str, rows: list[Row], settings: Settings) -> list[Row]:
    """Print the rows as a table and write them as JSON."""
    header = ["question", "measured", "comparator", "value", "target", ""]
    say(f"\n{name}\n\n{markdown_table(header, [row.cells for row in rows])}")
    content = {"short": settings.short, "rows": [asdict(row) | {"met": row.met} for row in rows]}
    write_json(name, content, settings)
    return rows


def write_json(name: str, content: dict[str, Any], settings: Settings) -> None:
    """Write OUTPUT/NAME.json: the machine and the content."""
    settings.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(settings.threads), **content}, indent=2)
    (settings.output / f"{name}.json").write_text(text + "\n")


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on: processor, load, threads, commit and versions."""
    model = re.search(r"model name\s*: (.*)", processor_description())
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "load": os.getloadavg()[0],
        "threads": threads,
        "threads of Polars": polars.thread_pool_size(),
        "commit": commit(),
        "dtype": "float32, unless the question names another",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def processor_description() -> str:
    """The content of /proc/cpuinfo; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def commit() -> str:
    """Commit of the checkout that holds this file, with + after changes; "none" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        described = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "none"
    return described.stdout.strip() or "none"
