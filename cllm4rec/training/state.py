"""The state of a stage that has not ended yet: all that training needs to go on as if it had never stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cllm4rec.data.files import remove_file, write_aside
from cllm4rec.training.meter import Totals

FORMAT_VERSION = 2
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

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float | None = None
    stale: int = 0
    late: bool = False
    seconds: float = 0.0
    totals: Totals = field(default_factory=Totals)


class Stopped(KeyboardInterrupt):
    """Training was asked to stop, and did after a whole step; its state is saved where it has a file for it."""


@dataclass(frozen=True)
class StateFile:
    """One safetensors file: the weights at hand, the best weights, the optimiser's moments, and `Progress` as metadata.

    It is written aside and renamed, so that at any moment there is a whole one.

    Attributes:
        path: the file.
        about: what is trained how: a state is only taken up by the same.
    """

    path: Path
    about: dict[str, Any] = field(default_factory=dict)

    def write(self, weights: Weights, best: Weights, moments: Weights, progress: Progress) -> None:
        """Save the state in the place of the one before; `moments`: those of the optimiser."""
        tensors = {f"now.{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in moments.items()}
        described = {"format_version": FORMAT_VERSION, "about": self.about, "progress": asdict(progress)}
        with write_aside(self.path) as aside:
            own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(own, aside, metadata={"state": json.dumps(described)})

    def described(self) -> dict[str, Any] | None:
        """What the file says of itself: `about` and `progress`; None where there is no file.

        Raises:
            ValueError: the file is damaged or of another format version.
        """
        if not self.path.is_file():
            return None
        found = self._read(lambda file: json.loads(file.metadata()["state"]))
        if found["format_version"] != FORMAT_VERSION:
            raise ValueError(f"{self.path}: format_version {found['format_version']!r} is unknown: remove it and start again")
        return dict(found)

    def take_up(self, weights: Weights) -> tuple[Progress, Weights, Weights]:
        """Fill weights as they were saved, and say where training stood, which weights were best, and the moments.

        Without a file nothing is filled, and training stands at the beginning.

        Raises:
            ValueError: the file is damaged, or it is of something else than `about` says.
        """
        described = self.described()
        if described is None:
            return Progress(), {}, {}
        for name in self.about:
            if described["about"].get(name) != self.about[name]:
                raise ValueError(
                    f"{self.path}: {name} is not as it was when training began: go on as it was, or remove the file "
                    "and start again"
                )
        groups: dict[str, Weights] = {"now": {}, "best": {}, "optimizer": {}}
        for key, tensor in self._read(_tensors).items():
            kind, own = key.split(".", 1)
            groups[kind][own] = tensor
        fits = set(groups["now"]) == set(weights) and all(groups["now"][name].shape == p.shape for name, p in weights.items())
        if not fits:
            raise ValueError(f"{self.path} does not fit the network: remove it and start this stage again")
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(groups["now"][name])
        progress = dict(described["progress"])
        return Progress(**progress | {"totals": _totals(progress["totals"])}), groups["best"], groups["optimizer"]

    def remove(self) -> None:
        """The stage has ended."""
        remove_file(self.path)

    def _read(self, of: Callable[[Any], Any]) -> Any:
        try:
            with safe_open(self.path, framework="pt") as file:
                return of(file)
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}): remove it and start this stage again") from error


def _tensors(file: Any) -> Weights:
    return {name: file.get_tensor(name) for name in file.keys()}


def _totals(saved: dict[str, Any]) -> Totals:
    pairs = {kind: {name: (value, n) for name, (value, n) in saved[kind].items()} for kind in ("losses", "norms")}
    return Totals(**saved | pairs)
