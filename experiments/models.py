"""Language models and encoders of the experiments, by their files."""

import hashlib
import json
from pathlib import Path

from cllm4rec.files.manifest import file_record
from cllm4rec.models.language.config import built_in_shape


def described_model(model: str) -> str:
    """The last part of a path and the SHA-256 of its files; another name stays as it is."""
    path = Path(model)
    if built_in_shape(model) is not None or not path.exists():
        return model
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    hashes = [(file.name, file_record(file).sha256) for file in files if file.is_file()]
    return f"{path.name}, SHA-256 {hashlib.sha256(json.dumps(hashes).encode()).hexdigest()}"
