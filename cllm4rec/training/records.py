"""Records of epochs: the lines of metrics.jsonl."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT, parse_json
from cllm4rec.files.writing import write_text

VALIDATION_METRIC = "ndcg@100"  # chooses settings, and the epoch whose weights are kept


@dataclass(frozen=True)
class EpochRecord:
    """Results of an epoch.

    Attributes:
        epoch: its number from 0, warm-up included.
        losses: mean of each loss term over the targets of the epoch.
        gradient_norms: mean over the steps, by group of parameters.
        diagnostics: further values that the network reports.
        validation: the validation metric; None if the epoch was not validated.
        seconds: of training, validation not included.
        tokens_per_second: over all processes, padding not included.
        best: whether the weights are the best so far.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epoch: int
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    diagnostics: dict[str, float]
    validation: float | None
    seconds: float
    tokens_per_second: float
    best: bool

    def __str__(self) -> str:
        """The epoch in one line, with only the main loss term of each objective, which is named like it."""
        values = [f"{name} {value:.4g}" for name, value in self.losses.items() if not self._is_further(name)]
        losses = ", ".join(values) or "nothing was trained"
        quality = "not validated"
        if self.validation is not None:
            mark = " (best so far)" if self.best else ""
            quality = f"validation {VALIDATION_METRIC} {self.validation:.4f}{mark}"
        speed = f"{self.tokens_per_second:,.0f} tokens/s, {self.seconds:.1f} s"
        return f"epoch {self.epoch}: {losses}; {quality}; {speed}"

    def _is_further(self, name: str) -> bool:
        """Whether a loss is a further term of another: `unified C_user` of `unified`."""
        return any(name.startswith(f"{other} ") for other in self.losses)


@dataclass(frozen=True)
class MetricsLine(EpochRecord):
    """A line of metrics.jsonl: the record of an epoch of a stage."""

    stage: str

    @classmethod
    def of_stage(cls, stage: str, record: EpochRecord) -> "MetricsLine":
        """The record of an epoch as a line."""
        return cls(**asdict(record), stage=stage)

    def as_json(self) -> dict[str, Any]:
        """The keys of the line, the stage first."""
        return {"stage": self.stage, **asdict(self)}


def parse_metrics(text: str) -> list[MetricsLine]:
    """The lines of metrics.jsonl.

    Raises:
        ValueError: a line is not a record of an epoch.
    """
    lines = enumerate(text.splitlines(), 1)
    return [parse_json(line, MetricsLine, f"line {number}") for number, line in lines]


def write_metrics(file: Path, lines: Iterable[MetricsLine]) -> None:
    """Write metrics.jsonl, whole or not at all."""
    write_text(file, "".join(json.dumps(line.as_json()) + "\n" for line in lines))
