"""Damaged and changed files of datasets and runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cllm4rec.files.manifest import write_manifest
from cllm4rec.models import system_class
from cllm4rec.models.base import Recommender
from cllm4rec.training.run_folder import RunFolder
from tests.support.commands import call

SYSTEMS = ("ease", "itemknn", "popularity", "sasrec", "cllm4rec", "rsllm")


def flips(file: Path, n: int, within: slice = slice(None)) -> Iterator[tuple[int, int]]:
    """Flip one bit of a file, n times, and yield (byte, bit). The next iteration undoes the flip."""
    content = file.read_bytes()
    draw = np.random.default_rng(len(content))
    for index in draw.choice(range(len(content))[within], size=n):
        bit = int(draw.integers(8))
        damaged = bytearray(content)
        damaged[index] ^= 1 << bit
        file.write_bytes(damaged)
        yield int(index), bit
    file.write_bytes(content)


def header_length(file: Path) -> int:
    """Return the length of the header of a safetensors file in bytes."""
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


def sign_again(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a folder, and write the manifest again."""
    described = json.loads((folder / name).read_text())
    change(described)
    (folder / name).write_text(json.dumps(described))
    write_manifest(folder)


def load_stage(stage: Path) -> Recommender:
    """Load a model without the run's hash of its manifest, which an attacker would change too."""
    return system_class(RunFolder(stage.parent).description.system).load(stage)


def resume(run: Path) -> None:
    call("pretrain", "--output", run, "--resume")
