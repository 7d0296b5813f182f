"""The settings that a search has chosen for a system, as flags of the package's commands."""

import json
from dataclasses import dataclass
from pathlib import Path

from experiments.tuning.rows import TrialTable, best_trial
from experiments.tuning.spaces import FIRST_STAGE
from experiments.tuning.trials import typed_flags


@dataclass(frozen=True)
class Chosen:
    """The settings of a best trial.

    Attributes:
        flags: command -> flags.
        seconds: wall time of all trials.
    """

    flags: dict[str, list[str]]
    seconds: float


def best_settings(folder: Path, set_name: str, space: str, data_sha256: str) -> Chosen | None:
    """The best trial in OUTPUT of `experiments.tune`; None if the space was not searched.

    Args:
        folder: OUTPUT.
        set_name: name of the set of the dataset folder.
        space: name of the search space.
        data_sha256: of the dataset, whatever its split.

    Raises:
        SystemExit: the file is no table of trials, they are of other data, or none of them succeeded.
    """
    file = folder / set_name / f"{space}.csv"
    if not file.is_file():
        return None
    table = TrialTable.read(file)
    if table.conditions.get("data_sha256") != data_sha256:
        raise SystemExit(f"error: {file} was measured on other data than this set: name another --tuned")
    best = best_trial(table.trials)
    if best is None:
        raise SystemExit(f"error: all trials of {file} failed: name another --tuned")
    fixed = json.loads(table.conditions["fixed"])
    flags: dict[str, list[str]] = {FIRST_STAGE: []}
    for name, value in {**fixed, **table.trials[best].outcome.values}.items():
        stage, _, setting = name.rpartition(".")
        flags.setdefault(stage or FIRST_STAGE, []).extend(typed_flags(setting, value))
    return Chosen(flags, sum(trial.outcome.cost.seconds for trial in table.trials))
