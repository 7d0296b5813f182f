"""JSON files that experiments keep in their output folders."""

import json
from pathlib import Path
from typing import Any


def read_object(file: Path, flag: str = "--output") -> dict[str, Any]:
    """The object in a file, empty where there is no file; `flag` names its folder.

    Raises:
        SystemExit: the file is damaged.
    """
    try:
        read = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise SystemExit(f"error: {file} is damaged: give another {flag}")
    return read
