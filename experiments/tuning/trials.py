"""A trial: the package's commands in processes of their own, on a dataset without test events."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cllm4rec.commands.flags import flag_of
from cllm4rec.training.run_folder import RunFolder
from experiments.commands import CommandFailed, Cost, run_command
from experiments.tuning.conditions import code_hash
from experiments.tuning.domains import Settings, Value
from experiments.tuning.rows import METRIC, Outcome
from experiments.tuning.spaces import FIRST_STAGE, settings_of, stages_of

DATASET, RUN = '"$DATASET"', '"$RUN"'  # folders in the command that repeats a trial


@dataclass(frozen=True)
class TrialCommands:
    """The commands of the trials of a system.

    Attributes:
        system: its name.
        fixed: settings of all trials.
        seed: of training, where the system has one.
    """

    system: str
    fixed: Settings
    seed: int

    def of(self, settings: Settings, dataset: object, run: object) -> dict[str, list[str]]:
        """Command -> arguments: the stages, then the evaluation on validation events.

        Args:
            settings: the searched settings; a name with a dot is one of a later stage.
            dataset, run: the folders.
        """
        stages = {stage: ["--run", str(run)] for stage in stages_of(self.system)}
        stages[FIRST_STAGE] = ["--dataset", str(dataset), "--output", str(run), "--system", self.system]
        seed = {"seed": self.seed} if "seed" in settings_of(self.system) else {}
        for name, value in {**seed, **self.fixed, **settings}.items():
            stage, _, setting = name.rpartition(".")
            stages[stage or FIRST_STAGE] += typed_flags(setting, value)
        return {**stages, "evaluate": ["--run", str(run), "--split", "validation", "--metrics", METRIC]}

    def line(self, settings: Settings) -> str:
        """The commands in one line, as typed in a shell with the variables DATASET and RUN."""
        return " && ".join(
            " ".join(["cllm4rec", command, *(_quoted(argument) for argument in arguments)])
            for command, arguments in self.of(settings, DATASET, RUN).items()
        )

    def run(self, settings: Settings, names: Sequence[str], dataset: Path, parent: Path) -> Outcome:
        """Run the commands in a folder that is removed afterwards.

        Args:
            settings: as in `of`.
            names: of the settings whose values are looked up.
            dataset: the dataset folder.
            parent: where the folder is made.
        """
        costs: list[Cost] = []
        code = code_hash()
        with TemporaryDirectory(prefix="trial-", dir=parent) as folder:
            run, result = Path(folder) / "run", Path(folder) / "validation.json"
            for command, arguments in self.of(settings, dataset, run).items():
                written = ["--json", str(result)] if command == "evaluate" else []
                try:
                    costs.append(run_command(command, *arguments, *written))
                except CommandFailed as failed:
                    failure = f"{command} failed with status {failed.status}"
                    return Outcome(None, {}, _sum([*costs, failed.cost]), code, failure)
            quality = float(json.loads(result.read_text())["metrics"][METRIC])
            return Outcome(quality, _values_of(run, names), _sum(costs), code)


def typed_flags(setting: str, value: Value) -> list[str]:
    """A setting as its flag; a switch has no value."""
    if isinstance(value, bool) or value in ("true", "false"):
        return [flag_of(setting)] if value in (True, "true") else []
    return [flag_of(setting), str(value)]


def _quoted(argument: str) -> str:
    return argument if argument in (DATASET, RUN) else shlex.quote(argument)


def _values_of(run: Path, names: Sequence[str]) -> dict[str, Value]:
    """Settings as a run records them."""
    recorded = {}
    for stage, settings in RunFolder.open(run).description.stages.items():
        prefix = "" if stage == FIRST_STAGE else f"{stage}."
        for name, value in {**settings.system, **(settings.training or {})}.items():
            recorded[prefix + name] = value
    values = {name: recorded[name] for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _sum(costs: Sequence[Cost]) -> Cost:
    """Times in all, and the largest peak memory."""
    each = [asdict(cost) for cost in costs]
    return Cost(
        sum(cost["seconds"] for cost in each),
        sum(cost["cpu_seconds"] for cost in each),
        max(cost["peak_mib"] for cost in each),
    )
