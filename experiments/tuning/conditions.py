"""What trials are measured under: the dataset by its name and hashes, threads, precision and versions."""

import hashlib
import importlib.metadata
import os
import platform
import re
from dataclasses import asdict
from pathlib import Path

import cllm4rec
from cllm4rec.data.dataset import Dataset
from cllm4rec.training.run_description import VERSIONS_OF


def dataset_with_validation(folder: Path) -> Dataset:
    """The dataset of a folder.

    Raises:
        SystemExit: it has no validation events.
        ValueError: there is no dataset, or it is damaged.
    """
    dataset = Dataset.load(folder)
    if not len(dataset.validation.interactions):
        raise SystemExit(f"error: {folder} has no validation events: prepare it with a split")
    return dataset


def set_name(folder: Path) -> str:
    """Name of the set of a dataset folder: that of its parent where the folder is that of a split seed."""
    folder = folder.resolve()
    return folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name


def dataset_label(folder: Path) -> str:
    """Name of the set of a dataset folder and its split seed: books/seed0."""
    return "/".join(dict.fromkeys([set_name(folder), folder.resolve().name]))


def dataset_conditions(label: str, dataset: Dataset) -> dict[str, str]:
    """The dataset of trials: column -> text. The hashes are those of the whole dataset."""
    return {"dataset": label, **asdict(dataset.hashes)}


def environment() -> dict[str, str]:
    """Threads, precision and versions that trials run with: column -> text."""
    versions = {each: importlib.metadata.version(each) for each in ("cllm4rec", *VERSIONS_OF)}
    return {
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "precision": os.environ.get("ACCELERATE_MIXED_PRECISION", ""),
        "versions": ", ".join([f"python {platform.python_version()}", *map(" ".join, versions.items())]),
    }


def hash_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def code_hash() -> str:
    """SHA-256 of the modules of the package: what a row was measured with, besides its settings."""
    folder = Path(cllm4rec.__path__[0])
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    return hash_of("".join(f"{name} {hash_of(files[name].read_text('utf-8'))}\n" for name in sorted(files)))
