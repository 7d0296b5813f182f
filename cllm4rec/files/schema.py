"""JSON of this package: every file is checked against a type when it is read."""

import functools
import json
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from cllm4rec.messages import shorten

STRICT: dict[str, Any] = {
    "extra": "forbid",
    "strict": True,
    "allow_inf_nan": False,
}  # `__pydantic_config__` of each type
LARGEST_JSON = 1 << 24  # bytes
Scalar = str | int | float | bool | None


class FormatVersionError(ValueError):
    """A file of another version of this package."""


class _Versioned(TypedDict):
    """The key that every JSON file of this package begins with; the others are not looked at."""

    format_version: int


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # imported when a file is read: --help does not wait for it

    return TypeAdapter(kind)


def json_text(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(value, indent=2) + "\n"


def read_json(path: Path, kind: Any) -> Any:
    """Read a JSON file as a value of a type.

    Args:
        path: the file.
        kind: a dataclass or TypedDict with `__pydantic_config__ = STRICT`: unknown keys are refused.

    Raises:
        ValueError: the file is too large, not JSON, or does not fit; the message names file, key and need.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes: at most {LARGEST_JSON:,} are read")
    return parse_json(path.read_bytes(), kind, path.name)


def check_version(path: Path, version: int) -> None:
    """Look at the format version of a JSON file before anything else of its folder.

    Raises:
        FormatVersionError: it is another one.
        ValueError: the file is not JSON, or has no version.
    """
    _same_version(read_json(path, _Versioned), version, path.name)


def check_version_of(text: str, version: int, name: str) -> None:
    """The same of a JSON text; `name` is that of its file, for errors."""
    _same_version(parse_json(text, _Versioned, name), version, name)


def _same_version(found: _Versioned, version: int, name: str) -> None:
    if found["format_version"] != version:
        raise FormatVersionError(
            f"{name}: format_version {shorten(str(found['format_version']))} is unknown: this version of cllm4rec reads {version}"
        )


def parse_json(text: str | bytes, kind: Any, name: str) -> Any:
    """A JSON text as a value of a type; `name` is that of its file, for errors."""
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = ".".join(shorten(str(key)) for key in first["loc"])
        given = first["input"]
        shown = f", not {shorten(repr(given))}" if isinstance(given, int | float | str) and keys else ""
        key = f"{name}: key {keys}" if keys else name
        raise ValueError(f"{key}: {shorten(first['msg'].splitlines()[0])}{shown}") from error


def checked(value: Any, kind: Any, name: str) -> Any:
    """A value that JSON can hold as one of a type, under the same rules."""
    return parse_json(json.dumps(value), kind, name)
