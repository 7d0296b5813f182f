"""Running a command: one-line errors, streams, exit status."""

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from cllm4rec.commands.failures import line_of, lost_process
from cllm4rec.commands.signals import ignore
from cllm4rec.training.allocator import keep_freed_memory, limit_kernel_caches

log = logging.getLogger("cllm4rec")


def say(line: str = "") -> None:
    """Print a line of a command's result on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command; a user's mistake ends in one line on standard error and exit status 2."""
    try:
        _run(main)
    finally:
        ignore()


def _run(main: Callable[[Sequence[str]], None]) -> None:
    _prepare_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # They log every request, every attempt of one, and every load.
    for name in ("httpx", "huggingface_hub", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    keep_freed_memory()
    limit_kernel_caches()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
        _leave_group()
    except SystemExit:
        # A signal stopped all processes together.
        _leave_group()
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        raise
    except BrokenPipeError:
        _discard_output()
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        lost = lost_process(error)
        if lost:
            # The launcher is about to end this process with a signal.
            ignore()
        line = line_of(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        if lost:
            # Without that process the group cannot be left.
            sys.stderr.flush()
            os._exit(2)
        sys.exit(2)


def _discard_output() -> None:
    """The reader of the output has ended, as `head` does: what is left of the output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Survive a closed standard output, and one whose encoding lacks characters."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _leave_group() -> None:
    """Leave the group of processes, if any; its threads may abort a process that exits while they run."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
