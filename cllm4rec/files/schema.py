"""JSON files of this package: each is validated against a type when it is read."""

import functools
import json
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from cllm4rec.messages import shorten

# `__pydantic_config__` of each type
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
MAX_JSON_BYTES = 1 << 24
Scalar = str | int | float | bool | None


class FormatVersionError(ValueError):
    """A file of another version of this package."""


class _Versioned(TypedDict):
    """The key that every JSON file of this package has. Other keys are ignored."""

    format_version: int


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # imported when a file is read: --help does not wait for it

    return TypeAdapter(kind)


def json_text(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(value, indent=2) + "\n"


def read_json(path: Path, kind: Any, version: int | None = None) -> Any:
    """Read a JSON file as a value of a type.

    Args:
        path: the file.
        kind: a dataclass or TypedDict with `__pydantic_config__ = STRICT`: unknown keys are refused.
        version: the format version that it must have, if any.

    Raises:
        FormatVersionError: the file has another format version.
        ValueError: the file is too large, not JSON, or of another type. The message names file, key and need.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(
            f"{path.name} has {path.stat().st_size:,} bytes: at most {MAX_JSON_BYTES:,} are read"
        )
    return parse_json(path.read_bytes(), kind, path.name, version)


def parse_json(text: str | bytes, kind: Any, name: str, version: int | None = None) -> Any:
    """Parse a JSON text as `read_json` reads a file. `name` is the file named in errors."""
    try:
        value = _parse(text, kind, name)
    except ValueError:
        if version is not None:  # the type is that of this version only
            _compare_versions(_parse(text, _Versioned, name)["format_version"], version, name)
        raise
    if version is not None:
        _compare_versions(
            value["format_version"] if isinstance(value, dict) else value.format_version, version, name
        )
    return value


def _parse(text: str | bytes, kind: Any, name: str) -> Any:
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        keys = ".".join(shorten(str(key)) for key in detail["loc"])
        value = detail["input"]
        quoted = f", not {shorten(repr(value))}" if isinstance(value, int | float | str) and keys else ""
        key = f"{name}: key {keys}" if keys else name
        raise ValueError(f"{key}: {shorten(detail['msg'].splitlines()[0])}{quoted}") from error


def _compare_versions(found: int, version: int, name: str) -> None:
    if found != version:
        raise FormatVersionError(
            f"{name}: format_version {shorten(str(found))} is unknown: this version of cllm4rec reads "
            f"{version}"
        )


def checked(value: Any, kind: Any, name: str) -> Any:
    """Validate a value that JSON can hold, as `parse_json` validates a text."""
    return parse_json(json.dumps(value), kind, name)
