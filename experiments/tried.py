"""Changes of a system's defaults, each measured on the validation events of several datasets.

    OMP_NUM_THREADS=1 python -m experiments.tried --dataset datasets/ml-100k/seed0 \
        --dataset datasets/beauty/seed0 --changes item_text=words finetune.learning_rate=1e-4,mask_share=0.3

A change is a setting or several, joined by commas, with the names of experiments.tune. A name with a dot is a
setting of a later stage. For each dataset and seed, the defaults are measured first and then each change.
Trials get a copy of the dataset without test events.

OUTPUT has a row for each trial. Its gain is the metric minus that of the defaults, of the same dataset, seed,
threads, precision and versions. `settings` has the values of all settings, of a later stage where they
are not as in the first. `defaults_sha256` is the hash of the defaults that the change is one of, and
`code_sha256` that of the package's modules.

Trials in OUTPUT are not run again, even if they failed. Where the defaults have changed since, what was
measured with the same settings is taken over in a new row. An interrupted trial starts afresh. Several calls
may add to one file.
"""

import argparse
import json
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from cllm4rec.commands.entry import say
from cllm4rec.models import SYSTEMS
from experiments.commands import Seeds, argument_parser, end_commands, ends_in_one_line
from experiments.report import markdown_table
from experiments.tuning.changes import DEFAULTS, Change, all_settings
from experiments.tuning.conditions import (
    dataset_conditions,
    dataset_label,
    dataset_with_validation,
    environment,
    hash_of,
)
from experiments.tuning.domains import Settings
from experiments.tuning.rows import METRIC, outcome_cells
from experiments.tuning.trials import TrialCommands
from experiments.tuning.tried_rows import (
    MEASURED,
    MEASUREMENT,
    Row,
    TriedRows,
    measurement,
    of_defaults,
    of_trial,
)

OUTPUT = Path("experiments/tried.csv")


@dataclass(frozen=True)
class Tried:
    """A trial of a change, or of the defaults.

    Attributes:
        row: its cells but what is measured.
        commands: of the trial.
        settings: the change.
        dataset: folder without test events.
    """

    row: Row
    commands: TrialCommands
    settings: Settings
    dataset: Path

    def measured_row(self) -> Row:
        """Run the trial in a folder that is removed afterwards; its row."""
        outcome = self.commands.run(self.settings, [], self.dataset, self.dataset.parent)
        return {**self.row, **outcome_cells(outcome)}


def settings_text(commands: TrialCommands, settings: Settings) -> str:
    """All settings of a trial as a cell; those of a later stage only where they are not as in the first."""
    values = all_settings(commands, settings)
    first = {name: value for name, value in values.items() if "." not in name}
    later = {
        name: value
        for name, value in values.items()
        if "." in name and value != first[name.partition(".")[2]]
    }
    return json.dumps(first | later)


def planned(
    folders: Sequence[Path], changes: Sequence[Change], system: str, seeds: Sequence[int], work: Path
) -> list[Tried]:
    """The trials, each once: the defaults on all datasets and seeds, then each change.

    Args:
        folders: of the datasets.
        changes: the defaults among them.
        system: its name.
        seeds: of training.
        work: folder for datasets without test events.

    Raises:
        SystemExit: a dataset has no validation events.
        ValueError: there is no dataset in a folder, or it is damaged.
    """
    defaults = hash_of(settings_text(TrialCommands(system, {}, seed=0), {}))
    shared = {"system": system, **environment(), "defaults_sha256": defaults}
    copies = {}
    for number, folder in enumerate(folders):
        data = dataset_with_validation(folder)
        copy = work / str(number) / "dataset"
        data.known.save(copy)
        copies[copy] = {**shared, **dataset_conditions(dataset_label(folder), data)}
    trials: dict[tuple[str, ...], Tried] = {}
    for change in changes:
        for copy, conditions in copies.items():
            for seed in seeds:
                commands = TrialCommands(system, {}, seed)
                cells = {
                    "change": change.text,
                    "seed": str(seed),
                    "settings": settings_text(commands, change.settings),
                    "command": commands.line(change.settings),
                }
                trial = Tried({**conditions, **cells}, commands, change.settings, copy)
                trials.setdefault(tuple(trial.row[name] for name in MEASUREMENT), trial)
    return list(trials.values())


def take_over(table: TriedRows, trials: Sequence[Tried]) -> list[Tried]:
    """The trials that are to be run. The table gets a row of each that was measured under other defaults."""
    missing = [trial for trial in trials if of_trial(table.rows, trial.row) is None]
    left = []
    for trial in missing:
        if (known := measurement(table.rows, trial.row)) is None:
            left.append(trial)
            continue
        table.add({**trial.row, **{name: known[name] for name in MEASURED}})
    return left


def as_they_end(trials: Sequence[Tried], jobs: int) -> Generator[Row, None, None]:
    """Run trials, several at a time, and give their rows. When it is closed, those under way are ended."""
    if jobs == 1:
        yield from map(Tried.measured_row, trials)
        return
    with ThreadPoolExecutor(jobs) as pool:  # each waits for its commands, which are processes
        try:  # around the submission too: the first ones run while the others are submitted
            pending = {pool.submit(trial.measured_row) for trial in trials}
            while pending:
                # A signal that comes just before a wait does not end it, so that waits are short.
                ended, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for each in ended:
                    yield each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_commands()
            raise


def summary(rows: Sequence[Row], trials: Sequence[Tried]) -> str:
    """Gain of each change on each dataset: mean of the seeds, and half of their range."""
    asked = [row for trial in trials if (row := of_trial(rows, trial.row)) is not None]
    datasets = list(dict.fromkeys(row["dataset"] for row in asked))
    lines = []
    for change in dict.fromkeys(row["change"] for row in asked):
        column, sign = ("gain", "+") if change else (METRIC, "")
        cells = [
            _cell([row[column] for row in asked if (row["change"], row["dataset"]) == (change, name)], sign)
            for name in datasets
        ]
        lines.append([change or f"defaults (validation {METRIC})", *cells])
    table = markdown_table(["change", *datasets], lines)
    other = dict.fromkeys(
        row["change"]
        for row in asked
        if (base := of_defaults(rows, row)) is not None and base["code_sha256"] != row["code_sha256"]
    )
    notes = [f"{change}: measured with other code than the defaults, see code_sha256" for change in other]
    return "\n\n".join([table, *notes])


def _cell(texts: Sequence[str], sign: str) -> str:
    """Mean of the seeds, and half of their range if there are several."""
    if not all(texts):
        return "failed"
    values = [float(text) for text in texts]
    spread = f" ± {(max(values) - min(values)) / 2:.4f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.4f}{spread}"


def main(
    dataset: Sequence[Path],
    changes: Sequence[str],
    system: str,
    seeds: Sequence[int],
    output: Path,
    jobs: int,
) -> None:
    typed = [DEFAULTS, *(Change.typed(text, system) for text in dict.fromkeys(changes))]
    table = TriedRows(output.resolve())
    with TemporaryDirectory(prefix="tried-") as work:
        trials = planned(dataset, typed, system, seeds, Path(work))
        left = take_over(table, trials)
        say(f"{len(trials)} trials, {len(trials) - len(left)} of them in {output}")
        with closing(as_they_end(left, jobs)) as measured:
            for row in measured:
                table.add(row)
                result = row["failure"] or f"validation {METRIC} {float(row[METRIC]):.4f}"
                say(f"{row['dataset']}, seed {row['seed']}, {row['change'] or 'defaults'}: {result}")
    say(f"\n{summary(table.rows, trials)}")


def _jobs(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


_jobs.__name__ = "positive int"  # argparse names it in its errors


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--dataset",
        type=Path,
        action="append",
        required=True,
        help="dataset folder with validation events; may be given several times",
    )
    parser.add_argument(
        "--changes",
        nargs="+",
        default=[],
        metavar="NAME=VALUE[,NAME=VALUE]",
        help="settings that differ from the defaults; without any, the defaults alone are measured",
    )
    parser.add_argument("--system", default="cllm4rec", choices=list(SYSTEMS), help="default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], action=Seeds, help="seeds of training (default: 0)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="CSV file (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=_jobs, default=1, help="trials at a time (default: %(default)s), which share the cores"
    )
    return parser.parse_args()


if __name__ == "__main__":
    with ends_in_one_line("goes on with the trials that did not end"):
        main(**vars(_arguments()))
