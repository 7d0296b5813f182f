"""Files of tables, and errors that refuse them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EVENTS_CSV = "user_id,item_id,rating,timestamp\n" + "".join(
    f"u{user},i{item},{1 + item % 5},{100 * user + item}\n" for user in range(4) for item in range(5)
)  # 20 events


def written(path: Path, content: str | bytes) -> Path:
    """The file with that content, compressed if its name ends in .gz."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def json_lines(*records: dict[str, Any]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(record) + "\n" for record in records)


def refused(call: Callable[..., object], *arguments: Any, **settings: Any) -> str:
    """The message of the ValueError that the call ends in: one printable line."""
    with pytest.raises(ValueError) as error:
        call(*arguments, **settings)
    assert str(error.value).isprintable()
    return str(error.value)
