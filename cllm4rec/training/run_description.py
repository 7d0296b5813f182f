"""The types of run.json, and how it is read and signed."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cllm4rec.files.damage import reading
from cllm4rec.files.schema import STRICT, Scalar, checked, json_text, read_json

FORMAT_VERSION = 4
VERSIONS_OF = ("torch", "transformers", "accelerate", "numpy", "scipy", "polars")
if TYPE_CHECKING:
    Stage = str  # callers have names of folders and values of flags
else:
    Stage = Literal["pretrain", "finetune"]  # other names in the file are refused


@dataclass(frozen=True)
class StageSettings:
    """How a stage is trained. A value that is None has no key in run.json.

    Attributes:
        system: settings of the system.
        training: settings of training; None for a system that is fitted in one go.
        precision: mixed precision of training, as Accelerate names it.
        n_processes: processes that trained.
        manifest_sha256: SHA-256 of the manifest of the stage's folder, once the stage has ended.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    system: dict[str, Scalar]
    training: dict[str, Scalar] | None = None
    precision: str | None = None
    n_processes: int | None = None
    manifest_sha256: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The keys of run.json that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class DatasetReference:
    """The dataset of a run: its folder, and the SHA-256 of its content and of its split."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    path: str
    data_sha256: str
    split_sha256: str


@dataclass(frozen=True)
class RunDescription:
    """The content of run.json.

    Attributes:
        format_version: of the run folder.
        system: name of the system.
        preset: preset of its settings, if any.
        dataset: what the run is trained on.
        versions: of this package, Python and the libraries that train.
        stages: settings of the stages that have weights.
        under_way: settings of the stages that have begun and not ended.
        sha256: of the other keys; empty until the description is written.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    format_version: int
    system: str
    preset: str | None
    dataset: DatasetReference
    versions: dict[str, str]
    stages: dict[Stage, StageSettings]
    under_way: dict[Stage, StageSettings]
    sha256: str = ""

    def settings_of(self, stage: str) -> StageSettings | None:
        """The settings of a stage that is under way, or else has weights; None if it never began."""
        return self.under_way.get(stage) or self.stages.get(stage)

    def as_json(self) -> dict[str, Any]:
        """The keys of run.json but `sha256`."""
        content = asdict(self)
        del content["sha256"]
        for stages in ("stages", "under_way"):
            named: dict[Stage, StageSettings] = getattr(self, stages)
            content[stages] = {stage: settings.as_json() for stage, settings in named.items()}
        return content


def new_description(
    system: str, preset: str | None, dataset: DatasetReference, under_way: Mapping[Stage, StageSettings]
) -> RunDescription:
    """The description of a run that begins, with the present versions of the libraries."""
    versions = {
        "cllm4rec": importlib.metadata.version("cllm4rec"),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONS_OF},
    }
    return RunDescription(FORMAT_VERSION, system, preset, dataset, versions, {}, dict(under_way))


def read_description(file: Path) -> RunDescription:
    """Read run.json.

    Raises:
        ValueError: it is damaged, or of another format version.
    """
    with reading(file, "train again"):
        description: RunDescription = read_json(file, RunDescription, FORMAT_VERSION)
        if description.sha256 != _sha256(description.as_json()):
            raise ValueError("its SHA-256 differs from the one it holds")
    return description


def signed_text(description: RunDescription) -> str:
    """The text of run.json, its own SHA-256 included.

    Raises:
        ValueError: a value is of another type than its field.
    """
    content = description.as_json()
    content["sha256"] = _sha256(content)
    checked(content, RunDescription, "run.json")
    return json_text(content)


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
