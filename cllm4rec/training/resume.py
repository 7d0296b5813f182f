"""The state of an unfinished stage: all that training needs to resume as if it had never stopped."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from cllm4rec.files.damage import reading
from cllm4rec.files.schema import STRICT, check_version_of, parse_json
from cllm4rec.files.writing import remove_file, replace_file
from cllm4rec.training.progress import Totals

FORMAT_VERSION = 3
GROUPS = ("now", "best", "optimizer")  # first part of a tensor's name
Weights = dict[str, Tensor]


@dataclass
class Progress:
    """Where a stage stands.

    Attributes:
        epoch: the epoch at hand, counted with the warm-up.
        step: steps of this epoch that are done.
        steps: steps of all epochs that are done.
        best: the best validation metric so far.
        stale: epochs since then.
        late: whether the time is used up.
        seconds: spent on the stage.
        totals: what was summed up in the epoch at hand.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float | None = None
    stale: int = 0
    late: bool = False
    seconds: float = 0.0
    totals: Totals = field(default_factory=Totals)


class StateDescription(TypedDict):
    """What a state file says of itself."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    format_version: int
    about: dict[str, Any]
    progress: Progress


class Stopped(KeyboardInterrupt):
    """Training was asked to stop, and did after a whole step; its state is saved where it has a file for it."""


@dataclass(frozen=True)
class ResumeFile:
    """One safetensors file: current weights, best weights, the optimiser's moments, and `Progress` as metadata.

    At any moment the file is whole. It holds a SHA-256 of all its content, which is compared when it is read.

    Attributes:
        path: the file.
        about: settings that a resumed training has to share.
    """

    path: Path
    about: dict[str, Any] = field(default_factory=dict)

    def write(self, weights: Weights, best: Weights, moments: Weights, progress: Progress) -> None:
        """Replace the state; `moments`: those of the optimiser."""
        tensors: Weights = {}
        for group, named in zip(GROUPS, (weights, best, moments), strict=True):
            tensors |= {
                f"{group}.{name}": tensor.detach().cpu().contiguous() for name, tensor in named.items()
            }
        self.save(
            tensors, {"format_version": FORMAT_VERSION, "about": self.about, "progress": asdict(progress)}
        )

    def save(self, tensors: Weights, described: dict[str, Any]) -> None:
        """Replace the file by these tensors and this description."""
        text = json.dumps(described)
        with replace_file(self.path) as new:
            save_file(tensors, new, metadata={"state": text, "sha256": _sha256(tensors, text)})

    def described(self) -> dict[str, Any] | None:
        """The file's `about` and `progress`; None where there is no file.

        Raises:
            ValueError: the file is damaged or of another format version.
        """
        found = self._read(with_tensors=False)
        return None if found is None else found[0] | {"progress": asdict(found[0]["progress"])}

    def restore(self, weights: Weights) -> tuple[Progress, Weights, Weights]:
        """Fill weights as they were saved.

        Without a file nothing is filled, and training stands at the beginning.

        Returns:
            Where training stood, the best weights, and the optimiser's moments.

        Raises:
            ValueError: the file is damaged, or other settings were saved than `about`.
        """
        found = self._read(with_tensors=True)
        if found is None:
            return Progress(), {}, {}
        described, tensors = found
        for name in self.about:
            if described["about"].get(name) != self.about[name]:
                raise ValueError(
                    f"{self.path}: {name} is not as it was when training began: go on as it was, or remove the file "
                    "and start again"
                )
        groups: dict[str, Weights] = {group: {} for group in GROUPS}
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            groups.setdefault(group, {})[name] = tensor
        now, best, moments = (groups[group] for group in GROUPS)
        if len(groups) > len(GROUPS) or not _alike(now, weights) or (best and not _alike(best, weights)):
            raise ValueError(f"{self.path} does not fit the network: remove it and start this stage again")
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(now[name])
        return described["progress"], best, moments

    def remove(self) -> None:
        """Remove the file: the stage has ended."""
        remove_file(self.path)

    def _read(self, with_tensors: bool) -> tuple[dict[str, Any], Weights] | None:
        """Description and, if asked for, the tensors, compared with the SHA-256; None where there is no file."""
        if not self.path.is_file():
            return None
        with (
            reading(self.path, "remove it and start this stage again"),
            safe_open(self.path, framework="pt") as file,
        ):
            text, sha256 = file.metadata()["state"], file.metadata()["sha256"]
            check_version_of(text, FORMAT_VERSION, "metadata")
            described: dict[str, Any] = parse_json(text, StateDescription, "metadata")
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
            if with_tensors and _sha256(tensors, text) != sha256:
                raise ValueError("its SHA-256 differs from the one it holds")
        return described, tensors


def _sha256(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of names, types, shapes and numbers of tensors, and of a text."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _alike(saved: Weights, weights: Weights) -> bool:
    """Whether two sets of weights have the same names, shapes and types."""
    return saved.keys() == weights.keys() and all(
        saved[name].shape == tensor.shape and saved[name].dtype == tensor.dtype
        for name, tensor in weights.items()
    )
