"""Folders of two files without a manifest, the texts of folders, and locks that other processes hold."""

import subprocess
import sys
from pathlib import Path

import polars as pl
from safetensors.numpy import load_file

from cllm4rec.files.folders import replace_folder

MARKER, OTHER = "part-00000.parquet", "part-00001.parquet"
HOLD = """
import sys
from contextlib import ExitStack
from pathlib import Path
from cllm4rec.files.locks import locked
with ExitStack() as stack:
    for path in sys.argv[1:]:
        stack.enter_context(locked(Path(path)))
    print("held", flush=True)
    sys.stdin.read()
"""


def fill(folder: Path, text: str) -> None:
    """Make or replace a folder with one file of this text."""
    with replace_folder(folder, MARKER) as new:
        (new / MARKER).write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lock_holder(*paths: Path) -> "subprocess.Popen[str]":
    """Start a process that holds locks until its standard input is closed."""
    line = [sys.executable, "-c", HOLD, *map(str, paths)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def texts_in(folder: Path) -> str:
    """The decoded content of every file of a folder."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".parquet":
            found += [str(pl.read_parquet(file).to_dict(as_series=False))]
        elif file.suffix == ".safetensors":
            arrays = load_file(file)
            words = [name for name in arrays if name.endswith("vocabulary")]
            found += [arrays[name].tobytes().decode() for name in words]
        elif file.is_file():
            found.append(file.read_text())
    return "\n".join(found)
