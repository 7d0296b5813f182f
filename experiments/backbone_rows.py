"""Measured rows of `experiments.backbones`: conditions, and the cost of each stage, in a JSON file each."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cllm4rec.files.writing import write_text
from experiments.commands import Cost, run_command

STAGES = ("pretrain", "finetune", "evaluate")  # commands of the package


@dataclass
class StageCost:
    """What a stage cost.

    Attributes:
        calls: how often its command was started. All but the last were interrupted.
        cost: of the last call; None until it has ended.
    """

    calls: int = 0
    cost: Cost | None = None


@dataclass
class Row:
    """The row of a variant, kept in a file.

    Attributes:
        file: of the row.
        conditions: what it is measured under.
        stages: cost of each stage that was started.
    """

    file: Path
    conditions: Mapping[str, Any]
    stages: dict[str, StageCost] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "Row":
        """The row of a file."""
        content = json.loads(file.read_text())
        stages = {
            stage: StageCost(each["calls"], None if each["cost"] is None else Cost(**each["cost"]))
            for stage, each in content["stages"].items()
        }
        return cls(file, content["conditions"], stages)

    @classmethod
    def begin(cls, file: Path, conditions: Mapping[str, Any]) -> "Row":
        """The row of a file, or a new one.

        Raises:
            SystemExit: the file holds a row of other conditions; the message names the first of them.
        """
        if not file.is_file():
            return cls(file, conditions)
        row = cls.read(file)
        for name in sorted({*conditions, *row.conditions}):
            before, now = row.conditions.get(name), conditions.get(name)
            if before != now:
                raise SystemExit(
                    f"error: {file} was measured with {name} {json.dumps(before)}, not {json.dumps(now)}: "
                    "name another --output"
                )
        return row

    @property
    def is_complete(self) -> bool:
        """Whether all stages have ended."""
        return all(stage in self.stages and self.stages[stage].cost is not None for stage in STAGES)

    def run_stage(self, stage: str, *arguments: object) -> None:
        """Run the command of a stage in a process of its own, unless it has ended before.

        Raises:
            SystemExit: the command failed; its error message was printed.
        """
        of_stage = self.stages.setdefault(stage, StageCost())
        if of_stage.cost is not None:
            return
        of_stage.calls += 1
        self._write()
        of_stage.cost = run_command(stage, *arguments)
        self._write()

    def _write(self) -> None:
        content = {
            "conditions": self.conditions,
            "stages": {stage: asdict(each) for stage, each in self.stages.items()},
        }
        write_text(self.file, json.dumps(content, indent=2) + "\n")
