"""What the commands share: dataclasses -> flags, YAML --config, one-line errors, logging."""

import ctypes
import logging
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

log = logging.getLogger("cllm4rec")

Tokens = list[str]


class _Parser(HfArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows all flags)\n")


def flag_value(argv: Sequence[str], flag: str, default: str | None = None) -> str | None:
    """The last value of a flag in --config's file and the arguments, before they are parsed as a whole."""
    value = default
    if flag != "--config":
        argv = [*config_tokens(argv), *argv]
    for i, token in enumerate(argv):
        if token == flag and i + 1 < len(argv):
            value = argv[i + 1]
        elif token.startswith(flag + "="):
            value = token.split("=", 1)[1]
    return value


def as_tokens(settings: dict[str, Any]) -> Tokens:
    """Settings as flags, so that they are checked just as typed ones; None is left out."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if value is not None]


def config_tokens(argv: Sequence[str]) -> Tokens:
    """The flags that the file of --config holds.

    Raises:
        ValueError: the file is missing or is not a list of `flag: value`.
    """
    path = flag_value(argv, "--config")
    if path is None:
        return []
    if not Path(path).is_file():
        raise ValueError(f"--config {path}: there is no such file")
    try:
        settings = yaml.safe_load(Path(path).read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"--config {path}: expected lines of `flag: value`")
    return as_tokens({str(name): value for name, value in settings.items()})


def parse(description: str, classes: Sequence[Any], argv: Sequence[str], defaults: Tokens | None = None) -> tuple[Any, ...]:
    """One instance of each dataclass from the arguments.

    Args:
        description: first line of --help.
        classes: dataclasses whose fields become flags, `learning_rate` -> `--learning-rate`.
        argv: what was typed. `defaults` come before it and what --config holds between them: the last one wins.
    """
    parser = _Parser(list(classes), description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file that fills any flag; typed flags win")
    instances = parser.parse_args_into_dataclasses([*(defaults or []), *config_tokens(argv), *argv], look_for_args_file=False)
    return tuple(instances[: len(classes)])


def say(line: str = "") -> None:
    """A line of a command's result, on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command: a user's mistake ends in one line on standard error and exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    _keep_memory()
    try:
        main(sys.argv[1:])
    except ValueError as error:
        log.debug("", exc_info=True)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


def _keep_memory() -> None:
    """Tell glibc to keep freed memory: a training step frees and takes the same blocks, and giving them back to the
    system in between costs up to half of the time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
