"""Runs commands of the package: echoes them, and measures their time and peak memory."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass

from cllm4rec.commands.entry import say

ECHOED_INTERPRETER = "python"


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        seconds: wall time.
        cpu_seconds: CPU time of all threads; other work on the machine does not count.
        peak_mib: peak memory.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float


def run_command(command: str, *arguments: object) -> Cost:
    """Echo and run `python -m cllm4rec.<command> ...`; its output is passed through.

    Raises:
        SystemExit: the command failed; its error message was printed.
    """
    line = ["-m", f"cllm4rec.{command}", *map(str, arguments)]
    say(f"\n$ {shlex.join([ECHOED_INTERPRETER, *line])}")
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *line])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the command above failed with status {process.returncode}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that keeps the line breaks of the description."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
