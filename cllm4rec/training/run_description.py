"""The JSON files of a run folder: the types of run.json and metrics.jsonl, and how they are read and written."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from cllm4rec.files.damage import reading
from cllm4rec.files.schema import STRICT, Scalar, check_version, checked, json_text, parse_json, read_json

FORMAT_VERSION = 3
Stage = Literal["pretrain", "finetune"]


class StageSettings(TypedDict):
    """How a stage is trained; once it has ended, also the SHA-256 of the manifest of its folder."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    system: dict[str, Scalar]
    training: NotRequired[dict[str, Scalar]]
    precision: NotRequired[str]
    n_processes: NotRequired[int]
    manifest_sha256: NotRequired[str]


class DatasetReference(TypedDict):
    """The dataset of a run."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    path: str
    data_sha256: str
    split_sha256: str


class RunDescription(TypedDict):
    """run.json. `sha256` is that of the other keys."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    format_version: int
    system: str
    preset: str | None
    dataset: DatasetReference
    versions: dict[str, str]
    stages: dict[Stage, StageSettings]
    under_way: dict[Stage, StageSettings]
    sha256: str


class MetricsLine(TypedDict):
    """A line of metrics.jsonl: a stage and the fields of an `EpochRecord`."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    stage: str
    epoch: int
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    diagnostics: dict[str, float]
    validation: float | None
    seconds: float
    tokens_per_second: float
    best: bool


def read_description(file: Path) -> dict[str, Any]:
    """The content of run.json, without its own SHA-256.

    Raises:
        ValueError: it is damaged, or of another format version.
    """
    with reading(file, "train again"):
        check_version(file, FORMAT_VERSION)
        described: dict[str, Any] = read_json(file, RunDescription)
        sha256 = described.pop("sha256")
        if sha256 != _sha256(described):
            raise ValueError("its SHA-256 differs from the one it holds")
    return described


def signed_text(described: dict[str, Any]) -> str:
    """The text of run.json, its own SHA-256 included.

    Raises:
        ValueError: a key is missing, unknown or of another type.
    """
    return json_text(checked(described | {"sha256": _sha256(described)}, RunDescription, "run.json"))


def _sha256(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def parse_metrics(text: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl.

    Raises:
        ValueError: a line is not a record of an epoch.
    """
    return [
        parse_json(line, MetricsLine, f"line {number}") for number, line in enumerate(text.splitlines(), 1)
    ]
