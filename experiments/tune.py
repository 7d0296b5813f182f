"""Settings of any system, searched on the validation events of a dataset folder.

    OMP_NUM_THREADS=1 python -m experiments.tune --dataset datasets/ml-100k/seed0 --systems ease ials \
        --trials 40 --output experiments/tuned

Every system gets the same budget: --trials, or --minutes after which no trial is started. Trial 0 has the
defaults of the package; what these leave open is chosen by its own grid. The others are drawn at random, or
are the points of a grid in random order. experiments/tuning/spaces.py has what is searched for each system.
What is tried next depends on the seed and on the trials before, not on the budget.

A value of the best trial may lie at an edge of its range, where that is no natural bound. Then every second
trial from trial 8 on goes a step beyond that edge, until the best lies inside or the budget is spent.

Data: a dataset folder with validation events. Trials get a copy of it without test events.

OUTPUT/SET/SYSTEM.csv has a row for each trial. OUTPUT/SET/chosen.md has the best ones, the place of each
value in its range, and the commands that repeat them. SET is the name of the folder; of seed0, that of its
parent. Ended trials are not run again, even if they failed; an interrupted one starts afresh. Rows of other
conditions are refused. Systems may be tuned at the same time, in calls of their own with the same OUTPUT.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.locks import locked
from cllm4rec.files.writing import write_text
from experiments.commands import argument_parser, ends_in_one_line
from experiments.tuning.changes import all_settings
from experiments.tuning.conditions import dataset_label, dataset_with_validation, set_name
from experiments.tuning.domains import Settings
from experiments.tuning.report import chosen_settings
from experiments.tuning.rows import METRIC, Outcome, Trial, TrialTable, best_trial
from experiments.tuning.search import KINDS
from experiments.tuning.searched import Searched, trial_conditions
from experiments.tuning.spaces import SPACES, settings_of, typed_settings
from experiments.tuning.trials import TrialCommands

REPORT = "chosen.md"


@dataclass(frozen=True)
class Budget:
    """Limit of a system: a number of trials, or minutes after which none is started."""

    trials: int | None = None
    minutes: float | None = None

    def is_spent(self, trials: Sequence[Trial]) -> bool:
        """Whether no further trial is started after these; failed ones count."""
        if self.trials is not None:
            return len(trials) >= self.trials
        assert self.minutes is not None
        return sum(trial.outcome.cost.seconds for trial in trials) >= self.minutes * 60


def run_trials(
    searched: Searched,
    budget: Budget,
    measure: Callable[[Settings], Outcome],
    command: Callable[[Settings], str],
) -> None:
    """Run trials until the budget is spent or all was tried. The table has each when it has ended.

    Args:
        searched: the search, and the trials so far.
        budget: of the system.
        measure: runs a trial.
        command: the line that repeats it.
    """
    table = searched.table
    name = table.conditions["system"]
    while not budget.is_spent(table.trials) and (proposal := searched.search.propose(table.trials)):
        number, settings = len(table.trials), proposal.settings
        shown = " ".join(f"{setting}={value}" for setting, value in settings.items())
        say(f"\n{name}, trial {number} ({proposal.origin}): {shown or 'as the package has them'}")
        outcome = measure(settings)
        table.add(Trial(proposal.origin, settings, command(settings), outcome))
        result = outcome.failure or f"validation {METRIC} {outcome.quality:.4f}"
        say(f"{name}, trial {number}: {result}; the best is trial {best_trial(table.trials)}")
    for edge in searched.edges():
        say(f"{name}: {edge}")


@dataclass(frozen=True)
class Tuning:
    """A search on a dataset, for several systems.

    Attributes:
        dataset: the data, with its test events.
        name: of its set and its split seed.
        folder: of rows and report.
        search: random or grid.
        seed: of draws and training.
        fixed: settings of all trials, where a system has them.
    """

    dataset: Dataset
    name: str
    folder: Path
    search: str
    seed: int
    fixed: Settings

    def commands(self, system: str) -> TrialCommands:
        """The commands of the trials of a system."""
        space = SPACES[system]
        known = settings_of(space.system)
        fixed = {setting: value for setting, value in self.fixed.items() if setting in known}
        return TrialCommands(space.system, {**space.fixed, **fixed}, self.seed)

    def begin(self, system: str) -> Searched:
        """The search of a system, and its trials so far.

        Raises:
            SystemExit: there are trials of other conditions or of another space.
        """
        fixed = self.commands(system).fixed
        conditions = trial_conditions(system, self.dataset, self.name, self.search, self.seed, fixed)
        return Searched.of(TrialTable.begin(self.folder / f"{system}.csv", conditions), self.dataset)

    def run(self, system: str, budget: Budget, without_test: Path, parent: Path) -> None:
        """Run the trials of a system.

        Args:
            system: its name in the spaces.
            budget: of the system.
            without_test: dataset folder without test events, all that a trial is given.
            parent: folder of temporary run folders.

        Raises:
            ValueError: another call runs its trials.
        """
        commands = self.commands(system)
        with locked(self.folder.resolve() / f"{system}.csv"):
            searched = self.begin(system)  # another call may have added trials
            names = list(searched.search.domains)
            run_trials(
                searched,
                budget,
                measure=lambda settings: commands.run(settings, names, without_test, parent),
                command=commands.line,
            )

    def report(self) -> str:
        """The page of all systems that were tuned on this dataset, now or before."""
        hashes, searched = asdict(self.dataset.hashes), {}
        for system in SPACES:
            if (file := self.folder / f"{system}.csv").is_file():
                table = TrialTable.read(file)
                if hashes.items() <= table.conditions.items():
                    searched[system] = Searched.of(table, self.dataset)
        return chosen_settings(self.name, searched)


def main(
    dataset: Path,
    systems: Sequence[str],
    search: str,
    budget: Budget,
    seed: int,
    fixed: Sequence[str],
    output: Path,
) -> None:
    settings = typed_settings(fixed, [SPACES[name].system for name in systems], "--fixed")
    data = dataset_with_validation(dataset)
    tuning = Tuning(data, dataset_label(dataset), output / set_name(dataset), search, seed, settings)
    for system in systems:  # all are compared before hours are spent on one of them
        try:
            all_settings(tuning.commands(system), {})
        except ValueError as error:
            raise SystemExit(f"error: --fixed, {system}: {error}") from None
        tuning.begin(system)
    with TemporaryDirectory(prefix="tune-") as work:
        without_test = Path(work) / "dataset"
        data.known.save(without_test)
        for system in systems:
            tuning.run(system, budget, without_test, Path(work))
    report = tuning.report()
    write_text(tuning.folder / REPORT, report)
    say(f"\n{report}")


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A reader of numbers above 0."""

    def read(text: str) -> float:
        if not kind(text) > 0:
            raise ValueError
        return kind(text)

    read.__name__ = f"positive {kind.__name__}"  # argparse names it in its errors
    return read


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset folder with validation events")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=list(SPACES),
        choices=list(SPACES),
        help="systems to tune, in this order (default: all)",
    )
    parser.add_argument(
        "--search", default=KINDS[0], choices=KINDS, help="order of trials (default: %(default)s)"
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--trials", type=_positive(int), help="trials of each system, failed ones too")
    budget.add_argument(
        "--minutes", type=_positive(float), help="minutes of each system, after which no trial is started"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of draws and of training (default: 0)")
    parser.add_argument(
        "--fixed",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help=(
            "settings that all trials have and that are not searched, such as epochs=20 or, of a later "
            "stage, finetune.epochs=20"
        ),
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of rows and chosen settings")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = vars(_arguments())
    limit = Budget(arguments.pop("trials"), arguments.pop("minutes"))
    with ends_in_one_line("goes on with the trial that did not end"):
        main(**arguments, budget=limit)
