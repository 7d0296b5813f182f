"""Digests of files and folders, without times."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

CLOCK = re.compile(r"seconds$|_per_second$")  # keys of JSON whose values a clock gives


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def without_clock(value: Any) -> Any:
    """JSON without its times."""
    if isinstance(value, dict):
        return {name: without_clock(item) for name, item in value.items() if not CLOCK.search(name)}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def tensors_sha256(path: Path) -> str:
    """SHA-256 over names, types and values of the tensors of a file."""
    from safetensors.numpy import load_file

    arrays = sorted(load_file(path).items())
    return sha256(
        b"".join(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes() for name, array in arrays)
    )


def content(path: Path) -> str:
    """Digest of a file's content, without times."""
    if path.suffix == ".safetensors":
        return tensors_sha256(path)
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = [data] if path.suffix == ".json" else data.splitlines()
        clockless = [without_clock(json.loads(line)) for line in lines]
        data = json.dumps(clockless).encode()
    return sha256(data)


def everything(folder: Path) -> dict[str, str]:
    """Path below the folder -> digest of the content; folders too, hidden files too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = "folder" if path.is_dir() and not path.is_symlink() else content(path)
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return [
        *(f"{name} is left over" for name in found.keys() - expected.keys()),
        *(f"{name} is missing" for name in expected.keys() - found.keys()),
        *(
            f"{name} differs"
            for name in sorted(found.keys() & expected.keys())
            if found[name] != expected[name]
        ),
    ]


def stage_digest(folder: Path) -> list[str]:
    """Digests of a stage folder: its description, then its weights."""
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and not hidden(path.relative_to(folder))
    ]
    described = [
        f"{path.relative_to(folder)} {content(path)}" for path in files if path.suffix != ".safetensors"
    ]
    return [
        sha256("".join(described).encode()),
        *(content(path) for path in files if path.suffix == ".safetensors"),
    ]


def hidden(path: Path) -> bool:
    """Whether a name of the path begins with a dot, as those of unfinished files do."""
    return any(name.startswith(".") for name in path.parts)
