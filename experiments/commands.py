"""Flags of the experiments, and the commands that they run: echoed, with their time and peak memory."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from cllm4rec.commands.entry import say
from cllm4rec.commands.failures import line_of

ECHOED_INTERPRETER = "python"
_STARTING = threading.Lock()
_RUNNING: set[subprocess.Popen[bytes]] = set()  # the commands under way, of all threads
_ENDED = threading.Event()  # no further command starts


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        seconds: wall time.
        cpu_seconds: CPU time of all threads and processes; other work on the machine does not count.
        peak_mib: peak memory, of the process that has the most.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float


class CommandFailed(SystemExit):  # noqa: N818 - an end of the program, unless somebody catches it
    """A command failed.

    Attributes:
        status: of its process; negative: the signal that killed it.
        cost: what it cost.
    """

    def __init__(self, status: int, cost: Cost) -> None:
        super().__init__(f"the command above failed with status {status}")
        self.status, self.cost = status, cost


def run_command(command: str, *arguments: object, processes: int = 1) -> Cost:
    """Echo and run `python -m cllm4rec.<command> ...`; its output is passed through.

    With more processes than one it is started as torchrun does. An interruption ends the command too.
    Threads may run several at a time; `end_commands` ends them.

    Raises:
        CommandFailed: the command failed; its error message was printed.
        KeyboardInterrupt: `end_commands` was called before it began.
    """
    line = ["-m", f"cllm4rec.{command}", *map(str, arguments)]
    if processes > 1:
        line[2:2] = ["--"]  # without it the launcher reads the arguments as its own
        line[:0] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    say(f"\n$ {shlex.join([ECHOED_INTERPRETER, *line])}")
    start = time.perf_counter()
    with _STARTING:
        if _ENDED.is_set():
            raise KeyboardInterrupt
        process = subprocess.Popen([sys.executable, *line])
        _RUNNING.add(process)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        _RUNNING.discard(process)
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    if process.returncode:
        raise CommandFailed(process.returncode, cost)
    return cost


@contextmanager
def ends_in_one_line(resumed: str | None = None) -> Iterator[None]:
    """End the program with one line, not a traceback, on a mistake of its user or an interruption.

    Args:
        resumed: what the same command does after an interruption, by SIGTERM too; None: Ctrl-C is raised on.

    Raises:
        SystemExit: the message of an error that is no defect of the program, or that it was interrupted.
    """
    before = signal.getsignal(signal.SIGTERM)
    if resumed is not None:  # so that the command under way ends too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except Exception as error:
        if (line := line_of(error)) is None:
            raise
        raise SystemExit(f"error: {line}") from None
    except KeyboardInterrupt:
        if resumed is None:
            raise
        raise SystemExit(f"interrupted: the same command {resumed}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def end_commands() -> None:
    """End the commands that other threads run, and let them start no further one."""
    with _STARTING:
        _ENDED.set()
        for process in list(_RUNNING):
            process.terminate()


class _Parser(argparse.ArgumentParser):
    """A wrong flag ends in one line, as in the commands of the package."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows all flags)\n")


class Seeds(argparse.Action):
    """Seeds of a flag: different, none negative."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(values, list)
        if min(values) < 0 or len(set(values)) < len(values):
            typed = " ".join(map(str, values))
            raise argparse.ArgumentError(self, f"{typed}: give different seeds, none below 0")
        setattr(namespace, self.dest, values)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that keeps the line breaks of the description."""
    return _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
