"""The resume file of an unfinished stage: all that training needs to resume as if it had never stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cllm4rec.corpora.documents import DocumentTokens
from cllm4rec.files.damage import reading
from cllm4rec.files.schema import STRICT, Scalar, parse_json
from cllm4rec.files.writing import remove_file, replace_file
from cllm4rec.messages import shorten
from cllm4rec.training.limits import Limits
from cllm4rec.training.progress import Progress

FORMAT_VERSION = 6
# prefixes of the tensors: current weights, best weights, moments, moving averages
GROUPS = ("now", "best", "optimizer", "average")
REMEDY = "remove it and start this stage again"
Weights = dict[str, Tensor]


@torch.no_grad()
def copy_weights(source: Weights, target: Weights) -> None:
    """Copy weights into those of the same names, in place; names that are missing get a copy."""
    for name, weight in source.items():
        if name in target:
            target[name].copy_(weight)
        else:
            target[name] = weight.detach().clone()


@dataclass(frozen=True)
class BuiltFrom:
    """What a network was built from, beyond the settings of its system. None: the system has none.

    Attributes:
        tokenizer: SHA-256 of the tokenizer of text.
        configuration: SHA-256 of the configuration of the backbone.
        backbone: SHA-256 of the weights of a frozen backbone.
        dtype: in which a frozen backbone is held.
        sequential: SHA-256 of the arrays of the sequential recommender.
        document: tokens with which a document begins and ends.
        templates: name of a prompt -> its wording.
        fitted: SHA-256 of what was fitted before training: words and vectors of texts.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    tokenizer: str | None = None
    configuration: str | None = None
    backbone: str | None = None
    dtype: str | None = None
    sequential: str | None = None
    document: DocumentTokens | None = None
    templates: dict[str, str] = field(default_factory=dict)
    fitted: str | None = None


@dataclass(frozen=True)
class Conditions:
    """Conditions that have to match before training resumes. None: not compared.

    Attributes:
        system: settings of the system.
        training: settings of training.
        precision: mixed precision of training, as Accelerate names it.
        built_from: what the network was built from.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    system: dict[str, Scalar] | None = None
    training: dict[str, Scalar] | None = None
    precision: str | None = None
    built_from: BuiltFrom = field(default_factory=BuiltFrom)

    def check(self, began: "Conditions") -> None:
        """Compare with the conditions in which training began.

        Raises:
            ValueError: one differs. The message names it.
        """
        templates, templates_before = self.built_from.templates, began.built_from.templates
        for name in templates | templates_before:
            now, before = templates.get(name), templates_before.get(name)
            if now != before:
                raise ValueError(
                    f"template {shorten(repr(name))} is {now!r} and was {shorten(repr(before))} when "
                    "training began: resume with the version of cllm4rec that began it, or remove the file "
                    "and start again"
                )
        dtype, dtype_before = self.built_from.dtype, began.built_from.dtype
        if None not in (dtype, dtype_before) and dtype != dtype_before:
            raise ValueError(
                f"the backbone was held in {dtype_before} when training began, and is in {dtype} "
                "here: resume on a device like that, or remove the file and start again"
            )
        before_by_name = began._by_name()
        for name, value in self._by_name().items():
            before = before_by_name[name]
            if value is not None and before != value:
                what = "what texts say" if name == "fitted" else name
                if isinstance(value, dict) and isinstance(before, dict):
                    differing = value.items() ^ before.items()
                    what = f"{min(name for name, _ in differing)!r} of {what}"
                raise ValueError(
                    f"{what} is not as it was when training began: resume as it was, or remove the file and "
                    "start again"
                )

    def _by_name(self) -> dict[str, Any]:
        """The conditions but the templates."""
        built_from = {name: value for name, value in vars(self.built_from).items() if name != "templates"}
        return {"system": self.system, "training": self.training, "precision": self.precision} | built_from


@dataclass(frozen=True)
class ResumeDescription:
    """JSON metadata of a resume file.

    Attributes:
        format_version: of the file.
        conditions: those in which training began.
        progress: of the stage.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    format_version: int
    conditions: Conditions
    progress: Progress


class Stopped(KeyboardInterrupt):
    """Training was asked to stop, and did so after a whole step. A resume file, if any, is written."""


class DivergedError(ValueError):
    """The gradient of a step is not finite.

    Attributes:
        kept: whether an epoch was validated, so that the best weights so far are kept; others may be far
            from any use.
    """

    def __init__(self, step: int, objective: str, kept: bool) -> None:
        rest = "the best weights so far are kept" if kept else "no epoch was validated, and nothing is kept"
        super().__init__(
            f"training diverged in step {step} ({objective}): the gradient is not finite; lower "
            f"`learning_rate` ({rest})"
        )
        self.kept = kept


@dataclass(frozen=True)
class ResumeFile:
    """A safetensors file: current and best weights, moments, averages, and progress as metadata.

    The file is whole at any moment. It holds a SHA-256 of its content, which is compared when it is read.

    Attributes:
        path: the file.
        conditions: those in which training begins or resumes.
    """

    path: Path
    conditions: Conditions = field(default_factory=Conditions)

    def of_network(self, built_from: BuiltFrom) -> "ResumeFile":
        """The same file, with what the network was built from among the conditions."""
        return replace(self, conditions=replace(self.conditions, built_from=built_from))

    def write(self, groups: Sequence[Weights], progress: Progress) -> None:
        """Replace the file.

        Args:
            groups: the tensors of each of GROUPS, by name.
            progress: of the stage.
        """
        tensors: Weights = {}
        for group, named in zip(GROUPS, groups, strict=True):
            for name, tensor in named.items():
                tensors[f"{group}.{name}"] = tensor.detach().cpu().contiguous()
        self.save(tensors, asdict(ResumeDescription(FORMAT_VERSION, self.conditions, progress)))

    def save(self, tensors: Weights, description: dict[str, Any]) -> None:
        """Replace the file by these tensors and the keys of a `ResumeDescription`."""
        text = json.dumps(description)
        with replace_file(self.path) as new:
            save_file(tensors, new, metadata={"state": text, "sha256": _sha256(tensors, text)})

    def describe(self) -> ResumeDescription | None:
        """The description in the file; None if there is no file.

        Raises:
            ValueError: the file is damaged or of another format version.
        """
        content = self._read(with_tensors=False)
        return None if content is None else content[0]

    def limits(self) -> Limits | None:
        """How steps were computed before training was interrupted; None if there is no file.

        Raises:
            ValueError: the file is damaged or of another format version.
        """
        description = self.describe()
        return None if description is None else description.progress.limits

    def restore(self, weights: Weights) -> tuple[Progress, Weights, Weights, Weights]:
        """Fill the weights with the saved ones. Without a file they stay, and progress is at its beginning.

        Returns:
            Progress, the best weights, the optimiser's moments, and the moving averages.

        Raises:
            ValueError: the file is damaged, does not fit the weights, or has other conditions.
        """
        content = self._read(with_tensors=True)
        if content is None:
            return Progress(), {}, {}, {}
        description, tensors = content
        try:
            self.conditions.check(description.conditions)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        groups: dict[str, Weights] = {group: {} for group in GROUPS}
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            groups.setdefault(group, {})[name] = tensor
        current, best, moments, averages = (groups[group] for group in GROUPS)
        fits = len(groups) == len(GROUPS) and _alike(current, weights) and (not best or _alike(best, weights))
        if not fits:
            raise ValueError(f"{self.path} does not fit the network: {REMEDY}")
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(current[name])
        return description.progress, best, moments, averages

    def remove(self) -> None:
        """Remove the file, if it exists."""
        remove_file(self.path)

    def _read(self, with_tensors: bool) -> tuple[ResumeDescription, Weights] | None:
        """Description and tensors, compared with the SHA-256; without tensors nothing can be compared."""
        if not self.path.is_file():
            return None
        with reading(self.path, REMEDY), safe_open(self.path, framework="pt") as file:
            text, sha256 = file.metadata()["state"], file.metadata()["sha256"]
            description: ResumeDescription = parse_json(text, ResumeDescription, "metadata", FORMAT_VERSION)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}
            if with_tensors and _sha256(tensors, text) != sha256:
                raise ValueError("its SHA-256 differs from the one it holds")
        return description, tensors


def _sha256(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 over a text and the names, types, shapes and values of tensors."""
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
