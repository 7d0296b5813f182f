"""Measured trials of a system: a row each in a CSV file, which is written after every trial."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cllm4rec.files.writing import write_text
from experiments.commands import Cost
from experiments.tuning.domains import Settings

METRIC = "ndcg@100"
COLUMNS = (
    *("trial", "origin", "settings", "values", METRIC, "failure", "seconds", "cpu_seconds", "peak_mib"),
    *("code_sha256", "command"),
)


@dataclass(frozen=True)
class Outcome:
    """What a trial gave.

    Attributes:
        quality: NDCG@100 on validation events; None if the trial failed.
        values: the searched settings as training used them, with what fitting chose; empty if it failed.
        cost: of all its commands.
        code_sha256: of the package's modules.
        failure: the command that failed, and its status; empty if none did.
    """

    quality: float | None
    values: Settings
    cost: Cost
    code_sha256: str
    failure: str = ""


@dataclass(frozen=True)
class Trial:
    """A row.

    Attributes:
        origin: defaults, random, grid or widened.
        settings: those that were typed, besides the fixed ones.
        command: repeats the trial.
        outcome: what it gave.
    """

    origin: str
    settings: Settings
    command: str
    outcome: Outcome


def best_trial(trials: Sequence[Trial]) -> int | None:
    """Number of the trial of the highest quality, the first of equal ones; None if none succeeded."""
    best, highest = None, -1.0
    for number, trial in enumerate(trials):
        quality = trial.outcome.quality
        if quality is not None and quality > highest:
            best, highest = number, quality
    return best


@dataclass
class TrialTable:
    """The trials of a system, kept in a file.

    Attributes:
        file: of the rows.
        conditions: what all trials are measured under: column -> text.
        trials: by number, from 0.
    """

    file: Path
    conditions: Mapping[str, str]
    trials: list[Trial]

    @classmethod
    def read(cls, file: Path) -> "TrialTable":
        """The table of a file.

        Raises:
            SystemExit: the file is no such table, or its rows have different conditions.
        """
        try:
            rows = read_rows(file)
            trials = [_trial(row) for row in rows]
            conditions = [{name: row[name] for name in row if name not in COLUMNS} for row in rows]
            numbers = [int(row["trial"]) for row in rows]
        except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
            raise SystemExit(f"error: {file} is no table of trials: name another --output") from error
        if not rows or numbers != list(range(len(rows))) or any(each != conditions[0] for each in conditions):
            raise SystemExit(
                f"error: {file} is not the table of one search: remove it, or name another --output"
            )
        return cls(file, conditions[0], trials)

    @classmethod
    def begin(cls, file: Path, conditions: Mapping[str, str]) -> "TrialTable":
        """The table of a file, or a new one.

        Raises:
            SystemExit: the file holds trials of other conditions; the message names the first of them.
        """
        if not file.is_file():
            return cls(file, conditions, [])
        table = cls.read(file)
        for name in (*conditions, *table.conditions):
            before, now = table.conditions.get(name), conditions.get(name)
            if before != now:
                raise SystemExit(
                    f"error: {file} was measured with {name} {before!r}, not {now!r}: name another --output"
                )
        return table

    def add(self, trial: Trial) -> None:
        """Append a trial, and write the file."""
        self.trials.append(trial)
        rows = [{**self.conditions, **_row(number, each)} for number, each in enumerate(self.trials)]
        write_rows(self.file, [*self.conditions, *COLUMNS], rows)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file: column -> text."""
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))


def write_rows(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Replace a CSV file; its folder is made."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text.getvalue())


def outcome_cells(outcome: Outcome) -> dict[str, str]:
    """What was measured in a trial: column -> text."""
    return {
        METRIC: "" if outcome.quality is None else repr(outcome.quality),
        "failure": outcome.failure,
        "seconds": f"{outcome.cost.seconds:.1f}",
        "cpu_seconds": f"{outcome.cost.cpu_seconds:.1f}",
        "peak_mib": f"{outcome.cost.peak_mib:.0f}",
        "code_sha256": outcome.code_sha256,
    }


def _row(number: int, trial: Trial) -> dict[str, str]:
    """The cells of a trial, its conditions left out."""
    return {
        "trial": str(number),
        "origin": trial.origin,
        "settings": json.dumps(trial.settings),
        "values": json.dumps(trial.outcome.values),
        **outcome_cells(trial.outcome),
        "command": trial.command,
    }


def _trial(row: Mapping[str, str]) -> Trial:
    """The trial of a row."""
    cost = Cost(float(row["seconds"]), float(row["cpu_seconds"]), float(row["peak_mib"]))
    quality = float(row[METRIC]) if row[METRIC] else None
    outcome = Outcome(quality, json.loads(row["values"]), cost, row["code_sha256"], row["failure"])
    return Trial(row["origin"], json.loads(row["settings"]), row["command"], outcome)
