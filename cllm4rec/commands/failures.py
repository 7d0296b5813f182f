"""What a command says of an error that is no mistake of the program: one line."""

import re
import sys

from safetensors import SafetensorError

from cllm4rec.files.memory import out_of_memory

LOST_PEER = re.compile(
    r"closed by peer|reset by peer|connection (closed|refused|reset)|broken pipe|socket|gloo|nccl", re.I
)


class LostProcessError(Exception):
    """Another process of a launched command has ended; the message says what to do."""


def line_of(error: BaseException) -> str | None:
    """The line that tells a user about an error; None if the error is a defect of the program.

    The libraries are asked for their kinds of errors only if they are imported: a mistyped flag waits for none.
    """
    if out_of_memory(error) and not isinstance(error, ValueError):  # which says what could not be read
        return (
            f"not enough memory ({_first_line(error)}): lower --batch-size or raise --accumulation in training, lower "
            "--candidates or --draws in evaluate, or take a machine with more"
        )
    if lost_process(error) and not isinstance(error, LostProcessError):
        return f"another process of this command has ended ({_first_line(error)}): start the command again"
    if isinstance(error, LostProcessError | ValueError | OSError | SafetensorError) or _of_polars(error):
        return " ".join(str(error).splitlines()) or type(error).__name__
    return None


def lost_process(error: BaseException) -> bool:
    """Whether an error comes from another process of a launched command that has ended."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    spoken = isinstance(error, RuntimeError) and LOST_PEER.search(str(error)) is not None
    return spoken or isinstance(error, LostProcessError | distributed.DistError)


def _of_polars(error: BaseException) -> bool:
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(
        error, polars.exceptions.PolarsError | polars.exceptions.PanicException
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
