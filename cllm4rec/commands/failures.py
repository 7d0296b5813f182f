"""Errors of a command that are no defects of the program: one line, with settings named as flags."""

import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from cllm4rec.files.memory import out_of_memory

LOST_PEER = re.compile(
    r"closed by peer|reset by peer|connection (closed|refused|reset)|broken pipe|socket|gloo|nccl", re.I
)
# A setting or argument in an error of the library: `title_words`, or with its value, `header=False`.
SETTING = r"(?<![^\s(])`(?P<name>[a-z][a-z0-9_]*)(?:=(?P<value>[^`]*))?`(?![^\s,;:.)])"
# A value of the user's data, as `repr` writes it.
QUOTED = r"""(?<!\w)b?'(?:[^'\\]|\\.)*'|(?<!\w)b?"(?:[^"\\]|\\.)*\""""
# Arguments that the flags call otherwise: argument, or argument and value -> flag.
OTHER_NAMES = {"events": "--interactions", "header": "--no-header", "header=False": "--no-header"}


class LostProcessError(Exception):
    """Another process of a launched command has ended; the message says what to do."""


def name_flags(message: str, flags: Collection[str], arguments: Iterable[str] = ()) -> str:
    """An error of the library as a command prints it: settings in backticks become its flags.

    `title_words` becomes --title-words, and `title_words=8` becomes --title-words 8, if the command has that
    flag. Otherwise only the backticks are removed. Quoted values and typed arguments stay as they are.

    Args:
        message: text of the error.
        flags: those of the command.
        arguments: as typed. The error may hold their values, and names of files and folders in them.
    """
    typed = sorted(set(_odd_names(arguments)), key=len, reverse=True)

    def flag(setting: re.Match[str]) -> str:
        name, value = setting["name"], setting["value"]
        if name is None:
            return setting[0]
        given = name if value is None else f"{name}={value}"
        other = OTHER_NAMES.get(given)
        if other in flags:
            return str(other)
        if (named := f"--{name.replace('_', '-')}") not in flags:
            return given
        return named if value in (None, "True") else f"{named} {value}"

    return re.sub("|".join([*map(re.escape, typed), QUOTED, SETTING]), flag, message)


def _odd_names(arguments: Iterable[str]) -> Iterator[str]:
    """Values with backticks or quotes among typed arguments, and such names of files and folders in them."""
    for argument in arguments:
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        for name in (value, *Path(value).parts):
            if len(name) > 1 and any(character in name for character in "`'\""):
                yield name


def line_of(error: BaseException) -> str | None:
    """The line that tells a user about an error; None if the error is a defect of the program.

    Libraries are asked for their errors only if they are imported, so that a wrong flag is reported at once.
    """
    # A ValueError for lack of memory already names the file.
    if out_of_memory(error) and not isinstance(error, ValueError):
        return (
            f"not enough memory ({_first_line(error)}): give a lower --memory in training, "
            "lower --candidates or --draws in evaluate, or take a machine with more"
        )
    if lost_process(error) and not isinstance(error, LostProcessError):
        return f"another process of this command has ended ({_first_line(error)}): start it again"
    if isinstance(error, LostProcessError | ValueError | OSError | SafetensorError) or _of_polars(error):
        return " ".join(str(error).splitlines()) or type(error).__name__
    return None


def lost_process(error: BaseException) -> bool:
    """Whether an error means that another process of a launched command has ended."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    lost_connection = isinstance(error, RuntimeError) and LOST_PEER.search(str(error)) is not None
    return lost_connection or isinstance(error, LostProcessError | distributed.DistError)


def _of_polars(error: BaseException) -> bool:
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(
        error, polars.exceptions.PolarsError | polars.exceptions.PanicException
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
