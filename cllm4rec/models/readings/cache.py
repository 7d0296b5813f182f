"""Readings of texts on disk: each encoder reads each set of texts once.

A reading is a file of safetensors. Its name is the SHA-256 of the encoder's fingerprint and the texts. It
also holds that name and the SHA-256 of its numbers, which are compared whenever it is read.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from cllm4rec.files.damage import READ_ERRORS
from cllm4rec.files.writing import replace_file
from cllm4rec.messages import error_line

log = logging.getLogger("cllm4rec")

VARIABLE = "CLLM4REC_CACHE"


def cache_folder() -> Path:
    """Folder of the readings: CLLM4REC_CACHE, else cllm4rec/readings in XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cllm4rec" / "readings"


def cached_reading(
    fingerprint: str, texts: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """Vectors of texts, float32 (n, d): those of the cache, else read now and kept there.

    A damaged or foreign file is read anew and replaced, which a warning says. A cache that cannot be written
    costs a warning, not the reading.

    Args:
        fingerprint: of the encoder.
        texts: distinct.
        encode: gives the vectors of texts.
    """
    name = _sha256(json.dumps([fingerprint, *texts]).encode())
    file = cache_folder() / f"{name}.safetensors"
    if file.exists():
        try:
            return _load(file, name, len(texts))
        except READ_ERRORS as error:
            log.warning("%s is damaged (%s): the texts are read again", file, error_line(error))
    vectors = np.ascontiguousarray(encode(texts), dtype=np.float32)
    try:
        _save(file, name, vectors)
    except (OSError, ValueError) as error:
        log.warning("the vectors of the texts are not kept for the next time: %s", error_line(error))
    return vectors


def _load(file: Path, name: str, n_texts: int) -> np.ndarray:
    """The vectors in a file.

    Raises:
        Exception: one of READ_ERRORS; the file is damaged or holds another reading.
    """
    with safe_open(file, framework="np") as opened:
        described = opened.metadata() or {}
        vectors = opened.get_tensor("vectors")
    if described.get("reading") != name or vectors.dtype != np.float32 or vectors.shape[:1] != (n_texts,):
        raise ValueError("it holds something else")
    if described.get("sha256") != _sha256(vectors.tobytes()):
        raise ValueError("its numbers differ from their SHA-256")
    return np.asarray(vectors)


def _save(file: Path, name: str, vectors: np.ndarray) -> None:
    """Write a reading, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(file) as new:
        save_file({"vectors": vectors}, new, {"reading": name, "sha256": _sha256(vectors.tobytes())})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
