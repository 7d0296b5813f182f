"""A model of sentence-transformers as an encoder of texts (extra `text`)."""

import importlib.util
import json
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from cllm4rec.messages import library_errors, shorten
from cllm4rec.models.language.architecture import read_config, weight_files, weight_shapes
from cllm4rec.models.language.silence import quiet
from cllm4rec.models.readings.fingerprints import files_sha256
from cllm4rec.training.device import on_gpu

MODULES = "modules.json"  # lists the modules of a sentence encoder; other models have no such file
PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")  # of the files that are read
NOT_FOUND = (RepositoryNotFoundError, LocalEntryNotFoundError, HFValidationError)  # at the hub, or here
KINDS = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")  # modules that are read


def sentence_folder(name: str) -> Path | None:
    """The folder of a sentence encoder; None if the name is that of another model, or of none.

    Args:
        name: a folder, or a name at the hub, from which the files are downloaded.

    Raises:
        ValueError: the files cannot be downloaded.
    """
    if Path(name).exists():
        return Path(name) if (Path(name) / MODULES).is_file() else None
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        return None
    with library_errors(f"encoder {name!r} cannot be loaded"):
        try:
            listed = Path(snapshot_download(name, allow_patterns=[MODULES])) / MODULES
        except (IncompleteSnapshotError, GatedRepoError):  # the repository is there, and cannot be read
            raise
        except NOT_FOUND:  # the name is reported when it is taken for a language model
            return None
        return Path(snapshot_download(name, allow_patterns=list(PATTERNS))) if listed.is_file() else None


class SentenceEncoder:
    """The vectors that a model of sentence-transformers gives, by its own pooling and length limit.

    Its folder is not trusted: no code of it is run, only safetensors are read, and only modules of KINDS.

    Attributes:
        folder: of its files.
    """

    def __init__(self, folder: Path) -> None:
        """Check the folder, without reading weights.

        Raises:
            ValueError: sentence-transformers is not installed, or a file is missing or is not to be trusted.
        """
        self.folder = folder
        if importlib.util.find_spec("sentence_transformers") is None:
            raise ValueError(
                f"{folder} is a model of sentence-transformers, which is not installed: "
                "pip install sentence-transformers (extra cllm4rec[text])"
            )
        with quiet(), library_errors(f"sentence encoder {str(folder)!r} cannot be loaded"):
            _check(folder)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its files."""
        files = {file for pattern in PATTERNS for file in self.folder.rglob(pattern)}
        return files_sha256(self.folder, sorted(files))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 (n, d). Progress shows on a terminal.

        Raises:
            ValueError: the model cannot be loaded.
        """
        from sentence_transformers import SentenceTransformer

        with quiet(), library_errors(f"sentence encoder {str(self.folder)!r} cannot be loaded"):
            model = SentenceTransformer(
                str(self.folder),
                device="cuda" if on_gpu() else "cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
        vectors: Any = model.encode(list(texts), show_progress_bar=sys.stderr.isatty())
        return np.asarray(vectors, dtype=np.float32)


def _check(folder: Path) -> None:
    """Compare the modules with those that are read, and their configuration with their weights.

    Raises:
        ValueError: a module is of another kind or outside of the folder, or has other weights than
            safetensors.
    """
    modules = json.loads((folder / MODULES).read_text("utf-8"))
    for module in modules:
        kind, path = str(module["type"]), str(module["path"])
        package, _, name = kind.rpartition(".")
        if not package.startswith("sentence_transformers.") or name not in KINDS:
            raise ValueError(f"its module {shorten(kind)} is none of {', '.join(KINDS)}")
        inside = (folder / path).resolve()
        if not inside.is_relative_to(folder.resolve()):
            raise ValueError(f"{MODULES} names {shorten(repr(path))}, which is outside of the folder")
        if name == "Transformer":
            read_config(inside, weight_shapes(weight_files(inside)))
        elif name in ("Dense", "LayerNorm") and not (inside / "model.safetensors").is_file():
            raise ValueError(f"{path} has no model.safetensors, and other weights are not read")
