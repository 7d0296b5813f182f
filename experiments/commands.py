"""Runs the package's own commands, echoes them, and notes their time and peak memory."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

ECHO_AS = "python"  # the interpreter's name where a command is shown


@dataclass(frozen=True)
class Spent:
    """What a command cost: wall time, CPU time over all threads (other work on the machine does not show in it), memory."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def show(line: str = "") -> None:
    """A line on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def command(module: str, *arguments: object) -> Spent:
    """Run `python -m cllm4rec.<module> ...`, echoed as typed; its output goes where this program's goes.

    Raises:
        SystemExit: the command failed; its own message has been shown.
    """
    typed = ["-m", f"cllm4rec.{module}", *map(str, arguments)]
    show(f"\n$ {shlex.join([ECHO_AS, *typed])}")
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *typed])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the command above failed with status {process.returncode}")
    return Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(aligned)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])
