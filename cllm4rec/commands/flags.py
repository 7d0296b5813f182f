"""Flags of the commands: defined by dataclasses of settings, filled by --config and the command line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import TracebackType, UnionType
from typing import Any, NoReturn, Self, get_args, get_type_hints

import yaml

from cllm4rec.commands.failures import name_flags
from cllm4rec.settings import check_settings
from cllm4rec.training.launched import n_launched

LAUNCHED = ("pretrain", "finetune", "evaluate", "recommend")  # commands that several processes share
LARGEST_CONFIG = 1 << 20  # bytes
FIXED = "fixed by pretraining (leave them out; names of folders that have moved are taken)"
NOT_GIVEN = ("", "null", "~", "false")


class _Parser(argparse.ArgumentParser):
    """Raises ValueError for a wrong flag, as other user mistakes do."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help shows all flags)")


class CommandLine:
    """The flags of a command: those of the file of --config, then those typed, which win.

    The file is read once. As a context manager, it names the flags in errors of the library (`name_flags`).
    """

    def __init__(self, command: str, argv: Sequence[str]) -> None:
        """Read the file of --config.

        Args:
            command: name of the command, for --help.
            argv: the arguments as typed.

        Raises:
            ValueError: the file is missing, or does not consist of lines `flag: value`; or several processes
                were launched for a command that uses one.
        """
        if n_launched() > 1 and command not in LAUNCHED:
            raise ValueError(
                f"{command} uses one process, and WORLD_SIZE is {n_launched()}: start it without the launcher"
            )
        parser = _Parser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config")
        self.command = command
        self.file: str | None = parser.parse_known_args(argv)[0].config
        self.settings = {} if self.file is None else read_config(self.file)
        given = {flag: text for flag, text in self.settings.items() if text.lower() not in NOT_GIVEN}
        filled = [flag if text.lower() == "true" else f"{flag}={text}" for flag, text in given.items()]
        self.arguments = [*filled, *argv]
        self.flags: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ValueError) and len(error.args) == 1:
            error.args = (name_flags(str(error.args[0]), self.flags, self.arguments),)

    def peek(self, options: type[Any]) -> argparse.Namespace:
        """The flags of one dataclass, before the others are known; None or False where not given."""
        parser = _Parser(add_help=False, allow_abbrev=False)
        self.flags |= {flag_of(field.name) for field in fields(options)}
        for field, kind in _fields(options):
            _add_flag(parser, field, kind, None)
        return parser.parse_known_args(self.arguments)[0]

    def parse(
        self,
        description: str,
        classes: Sequence[type[Any]],
        defaults: dict[str, Any] | None = None,
        fixed: Sequence[str] = (),
    ) -> tuple[Any, ...]:
        """One instance of each dataclass; `--help` prints the flags and exits.

        Args:
            description: first line of --help.
            classes: dataclasses whose fields are the flags: `learning_rate` -> `--learning-rate`.
            defaults: field -> value that replaces its default.
            fixed: fields that an earlier stage fixed; `--help` lists them last.

        Raises:
            ValueError: a flag is unknown, missing or has a wrong value.
        """
        defaults = defaults or {}
        groups = [(each, field, kind) for each in classes for field, kind in _fields(each)]
        self.flags = {flag_of(field.name) for _, field, _ in groups}
        for flag in self.settings:
            if flag not in self.flags:
                raise ValueError(f"--config {self.file}: {flag} is not a flag of this command")
        parser = _Parser(
            prog=started_as(self.command),
            usage=_usage(self.command, [field for _, field, _ in groups], defaults),
            description=description,
            allow_abbrev=False,
        )
        titles = {each: _title(each) for each in classes[1:]}
        further = ["advanced", *([FIXED] if fixed else [])]
        sections = {title: parser.add_argument_group(title) for title in [*titles.values(), *further]}
        for each, field, kind in groups:
            title = "advanced" if field.metadata.get("advanced") else titles.get(each)
            title = FIXED if field.name in fixed else title
            section = parser if title is None else sections[title]
            _add_flag(section, field, kind, defaults.get(field.name, field.default))
        parser.add_argument("--config", metavar="FILE", help="YAML file that fills any flag; typed flags win")
        typed = vars(parser.parse_args(self.arguments))
        configs = tuple(each(**{field.name: typed[field.name] for field in fields(each)}) for each in classes)
        for config in configs:
            check_settings(config)
        return configs


def flag_of(name: str) -> str:
    """The flag of a setting: `learning_rate` -> `--learning-rate`."""
    return f"--{name.replace('_', '-')}"


def read_config(path: str) -> dict[str, str]:
    """The content of a YAML file of settings: flag -> text as written; list values are joined by commas.

    Raises:
        ValueError: the file is missing, too large, not YAML, or does not consist of lines `flag: value`.
    """
    file, expected = Path(path), "expected lines of 'flag: value'"
    if not file.is_file():
        raise ValueError(f"--config {path}: there is no such file")
    if (size := file.stat().st_size) > LARGEST_CONFIG:
        raise ValueError(f"--config {path}: {size:,} bytes are more than any configuration has")
    try:
        # BaseLoader keeps scalars as text: 007 stays 007.
        content = yaml.load(file.read_text("utf-8-sig"), Loader=yaml.BaseLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {path}: {expected}")
    settings = {}
    for name, value in content.items():
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"--config {path}: {name} is neither a value nor a list of values: {expected}")
        settings[flag_of(name)] = ",".join(texts)
    return settings


def _fields(options: type[Any]) -> list[tuple[Field[Any], Any]]:
    """Fields of a dataclass with the type of their value: T for `T | None`."""
    types = get_type_hints(options)
    members = {
        name: get_args(kind) if isinstance(kind, UnionType) else (kind,) for name, kind in types.items()
    }
    return [(field, members[field.name][0]) for field in fields(options)]


def _title(options: type[Any]) -> str:
    """The heading of a dataclass in --help: the first line of its docstring."""
    return str(options.__doc__).splitlines()[0].lower().partition(":")[0].rstrip(".")


def started_as(command: str) -> str:
    """The command as typed: by the console script, or by a module after `python -m`."""
    spec = sys.modules["__main__"].__spec__
    modules = {
        "cllm4rec.__main__": f"python -m cllm4rec {command}",
        f"cllm4rec.{command}": f"python -m cllm4rec.{command}",
    }
    return modules.get(spec.name if spec else "", f"cllm4rec {command}")


def _usage(command: str, options: Sequence[Field[Any]], defaults: dict[str, Any]) -> str:
    """The usage line of --help: the required flags."""
    required = [field for field in options if defaults.get(field.name, field.default) is MISSING]
    typed = [f"{flag_of(field.name)} {field.metadata.get('metavar', 'VALUE')}" for field in required]
    return " ".join([started_as(command), *typed, "[options]"])


def _add_flag(parser: argparse._ActionsContainer, field: Field[Any], kind: Any, default: Any) -> None:
    """Add the flag of a field: a switch if it is a bool, required if it has no default."""
    rules = field.metadata
    text = rules["help"].replace("%", "%%")
    if kind is bool:
        parser.add_argument(flag_of(field.name), action="store_true", default=default is True, help=text)
        return
    shown = "auto" if default is None and "auto" in rules else default
    parser.add_argument(
        flag_of(field.name),
        type=_or_auto(kind) if "auto" in rules else kind,
        required=default is MISSING,
        default=default,
        choices=rules.get("choices"),
        metavar=None if "choices" in rules else rules.get("metavar", kind.__name__.upper()),
        help=text if shown is MISSING or shown is None else f"{text} (default: {shown})",
    )


def _or_auto(kind: Any) -> Callable[[str], Any]:
    """A reader of numbers that reads the word auto as None."""

    def read(text: str) -> Any:
        return None if text == "auto" else kind(text)

    # argparse names the kind in its errors.
    read.__name__ = kind.__name__
    return read
