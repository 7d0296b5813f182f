"""What the commands share: dataclasses -> flags, YAML --config, one-line errors, logging."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_type_hints

import yaml

from cllm4rec.settings import check_settings

LARGEST_CONFIG = 1 << 20  # bytes


class _Parser(argparse.ArgumentParser):
    """A wrong flag is an error like any other mistake of a user."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help shows all flags)")


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


def flag_given(argv: Sequence[str], flag: str) -> bool:
    """Whether a switch is on, in --config's file or the arguments."""
    return flag in [*config_tokens(argv), *argv]


def config_settings(argv: Sequence[str]) -> dict[str, str]:
    """What the file of --config holds: flag -> text as written; a list becomes its parts with commas between.

    Raises:
        ValueError: the file is missing or is not a list of `flag: value`.
    """
    path = flag_value(argv, "--config")
    if path is None:
        return {}
    if not Path(path).is_file():
        raise ValueError(f"--config {path}: there is no such file")
    if (size := Path(path).stat().st_size) > LARGEST_CONFIG:
        raise ValueError(f"--config {path}: {size:,} bytes are more than any configuration has")
    try:
        settings = yaml.load(
            Path(path).read_text("utf-8-sig"), Loader=yaml.BaseLoader
        )  # values stay text: 007 is 007
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings or {}, dict):
        raise ValueError(f"--config {path}: expected lines of `flag: value`")
    found = {}
    for name, value in (settings or {}).items():
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(
                f"--config {path}: {name} is neither a value nor a list of values: expected lines of `flag: value`"
            )
        found[f"--{name.replace('_', '-')}"] = ",".join(parts)
    return found


def config_tokens(argv: Sequence[str]) -> list[str]:
    """The settings of the file as flags, so that both are checked alike. Null, and false of a switch, are left out."""
    settings = {
        flag: value
        for flag, value in config_settings(argv).items()
        if value.lower() not in ("", "null", "~", "false")
    }
    return [flag if value.lower() == "true" else f"{flag}={value}" for flag, value in settings.items()]


def parse(
    command: str,
    description: str,
    classes: Sequence[Any],
    argv: Sequence[str],
    defaults: dict[str, Any] | None = None,
) -> tuple[Any, ...]:
    """One instance of each dataclass from the arguments.

    Args:
        command: name of the command, for --help.
        description: first line of --help.
        classes: dataclasses whose fields become flags, `learning_rate` -> `--learning-rate`; help and choices are in the
            fields' metadata.
        argv: what was typed; it wins over what --config holds.
        defaults: values in the place of the fields' own defaults.
    """
    parser = _Parser(prog=f"python -m cllm4rec.{command}", description=description, allow_abbrev=False)
    for one in classes:
        _add_fields(parser, one, defaults or {})
    parser.add_argument("--config", metavar="FILE", help="YAML file that fills any flag; typed flags win")
    flags = [f"--{field.name.replace('_', '-')}" for one in classes for field in fields(one)]
    for flag in config_settings(argv):
        if flag not in flags:
            raise ValueError(f"--config {flag_value(argv, '--config')}: {flag} is not a flag of this command")
    given = vars(parser.parse_args([*config_tokens(argv), *argv]))
    found = tuple(one(**{field.name: given[field.name] for field in fields(one)}) for one in classes)
    for one in found:
        check_settings(one)
    return found


def _add_fields(parser: argparse.ArgumentParser, described: Any, defaults: dict[str, Any]) -> None:
    """A flag for each field of a dataclass: bool fields are switches, fields without a default are needed."""
    types = get_type_hints(described)
    for field in fields(described):
        kind, flag = types[field.name], f"--{field.name.replace('_', '-')}"
        if isinstance(kind, UnionType):  # X | None
            kind = next(one for one in get_args(kind) if one is not type(None))
        text, default = field.metadata["help"].replace("%", "%%"), defaults.get(field.name, field.default)
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
            continue
        shown = "" if default is MISSING or default is None else f" (default: {default})"
        parser.add_argument(
            flag,
            type=_or_auto(kind) if field.metadata.get("auto") else kind,
            required=default is MISSING,
            default=default,
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else kind.__name__.upper(),
            help=text + shown,
        )


def _or_auto(kind: Any) -> Callable[[str], Any]:
    """Reads a number, or the word auto as None: what is None is chosen."""

    def read(text: str) -> Any:
        return None if text == "auto" else kind(text)

    read.__name__ = kind.__name__  # argparse names the kind in its message
    return read
