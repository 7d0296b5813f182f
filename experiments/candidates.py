"""LLaRA's protocol: the next item among 20 candidates; a sequential system and RSLLM.

    python -m experiments.candidates --interactions EVENTS --items ITEMS --split ROWS --output runs/lastfm
    python -m experiments.candidates ... --folds 5 --backbone FOLDER --output runs/lastfm-folds

Without --folds the test rows are those of LLaRA's split. They are few. With --folds each user is measured
once: the last item is the target, the ten before it the history, and rows of the split are taken as they
are. The users are split at random; those of a fold are measured by systems that were trained on others.

Data: tables of events, of items with titles, and of held-out rows (docs/data.md). No recipe makes the splits
of LLaRA: docs/rsllm.md says what LLaRA publishes, and the form of these tables.

Prints a table of HitRatio@1 and ValidRatio: means over training seeds and draws of candidates, with 95 %
intervals over rows, and RSLLM minus each other system, paired over rows. OUTPUT/table.md holds it. Measured
rows are not run again, and interrupted training resumes. Other tables and other settings are refused. Where a
row answers in words, the prompts of all name the candidates.

Seeds and folds may run at the same time, each in a call of its own with the same OUTPUT: --only names them,
once a call with --only alone has made the datasets. The table has all that have ended.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.commands.entry import say
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.files.manifest import file_record
from cllm4rec.files.writing import write_text
from experiments.candidate_folds import write_folds
from experiments.commands import Seeds, argument_parser, ends_in_one_line, run_command
from experiments.prepared import prepare_once
from experiments.report import difference_cell, markdown_table

REFERENCE, SEQUENTIAL, STAGE_1 = "RSLLM", "sequential system", "stage-1"
FORMS = {  # run -> flags of finetune; all continue the run of stage 1
    "unified": [],
    "text": ["--prompt", "text"],
    "ids": ["--prompt", "ids"],
}
ROWS = {  # name -> run, --by of evaluate
    SEQUENTIAL: ("sequential", "scores"),
    REFERENCE: ("unified", "scores"),
    "RSLLM, language model alone": ("unified", "language"),
    "RSLLM, titles alone": ("text", "language"),
    "RSLLM, soft tokens alone": ("ids", "language"),
    "RSLLM, likelihood of titles": ("unified", "likelihood"),
    "RSLLM, free generation": ("unified", "generation"),
    "RSLLM, constrained generation": ("unified", "constrained"),
}
IN_WORDS = ("likelihood", "generation", "constrained")
COMPARED = ("RSLLM, language model alone", REFERENCE)  # rows minus each other one


@dataclass(frozen=True)
class Plan:
    """How the systems are trained and measured.

    Attributes:
        sequential: system whose item vectors RSLLM has; it reads words of titles.
        backbone: of RSLLM.
        candidates, draws: of each row.
        epochs: of stage 1, and at most of stage 2.
        rows: to measure.
    """

    sequential: str
    backbone: str
    candidates: int
    draws: int
    epochs: tuple[int, int]
    rows: Sequence[str]

    @property
    def names_candidates(self) -> bool:
        """Whether prompts name the candidates."""
        return any(ROWS[name][1] in IN_WORDS for name in self.rows)

    def check(self, tables: Mapping[str, Path], folds: int, output: Path) -> None:
        """Record what is measured in OUTPUT/plan.json; rows may be added later.

        Args:
            tables: flag -> file.
            folds: number of folds.
            output: folder of the results.

        Raises:
            SystemExit: a table is missing, or the results of `output` are of other tables or settings.
        """
        for flag, file in tables.items():
            if not file.is_file():
                raise SystemExit(f"error: {flag} {file}: there is no such file")
        settings = asdict(self) | {"folds": folds, "names candidates": self.names_candidates}
        settings |= {flag: file_record(file).sha256 for flag, file in tables.items()}
        del settings["rows"]
        settings, file = json.loads(json.dumps(settings)), output / "plan.json"
        before = json.loads(file.read_text()) if file.is_file() else settings
        for name, value in settings.items():
            if before.get(name) != value:
                raise SystemExit(
                    f"error: {output} has results with another {name}: {before.get(name)}, not {value}; give "
                    "another --output"
                )
        write_text(file, json.dumps(settings, indent=2) + "\n")


@dataclass(frozen=True)
class Part:
    """A training seed or a fold.

    Attributes:
        name: of its folder.
        dataset: folder of the dataset.
        seed: of training.
    """

    name: str
    dataset: Path
    seed: int


def train(part: Part, parent: Path, plan: Plan) -> None:
    """Train the sequential system, and RSLLM on its embeddings."""
    sequential, stage_1 = parent / "sequential", parent / STAGE_1
    common = ["--dataset", part.dataset, "--seed", part.seed, "--resume"]
    base = ["--system", plan.sequential, "--item-text", "words"]
    run_command("pretrain", *base, "--output", sequential, *common)
    used = {ROWS[name][0] for name in plan.rows}
    if not used & {*FORMS}:
        return
    settings = ["--sequential", sequential, "--backbone", plan.backbone]
    if plan.names_candidates:
        settings += ["--candidates", plan.candidates]
    epochs = ["--epochs", plan.epochs[0]]
    run_command("pretrain", "--system", "rsllm", "--output", stage_1, *settings, *epochs, *common)
    for form, flags in FORMS.items():
        if form in used:
            if not (parent / form).is_dir():
                shutil.copytree(stage_1, parent / form)
            stage_2 = ["--epochs", plan.epochs[1], "--seed", part.seed, "--resume"]
            run_command("finetune", "--run", parent / form, *flags, *stage_2)


def evaluate(parent: Path, name: str, plan: Plan) -> pl.DataFrame:
    """Metrics of a system, a row per test row; evaluated unless the file exists."""
    run, by = ROWS[name]
    values = parent / f"{run}-{by}.parquet"
    if not values.is_file():
        protocol = ("--candidates", plan.candidates, "--draws", plan.draws, "--by", by)
        files = ("--json", values.with_suffix(".json"), "--per-user", values)
        run_command("evaluate", "--run", parent / run, *protocol, *files)
    return pl.read_parquet(values)


def values_of(tables: Sequence[pl.DataFrame], metric: str, folds: bool) -> np.ndarray:
    """A metric of each row, (n_rows,): of the rows of all folds, or the mean over training seeds."""
    values = [table[metric].to_numpy() for table in tables]
    return np.concatenate(values) if folds else np.mean(values, axis=0)


def summary(results: dict[str, list[pl.DataFrame]], folds: bool) -> str:
    """Table of the systems, and the paired differences of RSLLM from the others.

    Args:
        results: system -> its results, a table for each part.
        folds: whether the parts are folds, not training seeds.
    """
    compared = [name for name in COMPARED if name in results]
    rows, hits = [], {name: values_of(tables, "hit_ratio@1", folds) for name, tables in results.items()}
    for name, tables in results.items():
        of_rows, valid = hits[name], values_of(tables, "valid_ratio", folds)
        low, high = bootstrap_interval(of_rows)
        means = [float(table["hit_ratio@1"].to_numpy().mean()) for table in tables]
        interval, spread = f"[{low:.4f}, {high:.4f}]", f"{min(means):.4f} to {max(means):.4f}"
        further = [
            "" if reference == name else difference_cell(hits[reference] - of_rows) for reference in compared
        ]
        rows.append([name, f"{of_rows.mean():.4f}", interval, spread, f"{valid.mean():.4f}", *further])
    over = "over folds" if folds else "over seeds"
    header = ["system", "HitRatio@1", "95 % over rows", over, "ValidRatio"]
    return markdown_table([*header, *(f"{name} minus this" for name in compared)], rows)


def parts(tables: dict[str, Path], seeds: list[int], folds: int, output: Path) -> list[Part]:
    """The training seeds on the split as it stands, or the folds of all users."""
    if not folds:
        prepare_once(output / "dataset", tables, {})
        return [Part(f"seed{seed}", output / "dataset", seed) for seed in seeds]
    written = write_folds(tables["--interactions"], tables["--split"], folds, output / "folds")
    for folder in written:
        files = {"--interactions": folder / "interactions.tsv", "--split": folder / "split.tsv"}
        prepare_once(folder / "dataset", files | {"--items": tables["--items"]}, {})
    return [Part(folder.name, folder / "dataset", seeds[0]) for folder in written]


def main(
    interactions: Path,
    items: Path,
    split: Path,
    seeds: list[int],
    output: Path,
    plan: Plan,
    folds: int = 0,
    only: Sequence[str] | None = None,
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    tables = {"--interactions": interactions, "--items": items, "--split": split}
    plan.check(tables, folds, output)
    known = parts(tables, seeds, folds, output)
    names = [part.name for part in known]
    if unknown := [name for name in only or () if name not in names]:
        raise SystemExit(f"error: --only {unknown[0]}: the parts are {', '.join(names)}")
    for part in known:
        if only is None or part.name in only:
            train(part, output / part.name, plan)
            for name in plan.rows:
                evaluate(output / part.name, name, plan)
    files = {name: "-".join(ROWS[name]) + ".parquet" for name in plan.rows}
    ended = [part for part in known if all((output / part.name / file).is_file() for file in files.values())]
    if not ended:
        return
    results = {
        name: [pl.read_parquet(output / part.name / file) for part in ended] for name, file in files.items()
    }
    table = summary(results, folds > 0)
    (output / "table.md").write_text(table + "\n")
    measured = ", ".join(part.name for part in ended)
    n_rows = sum(map(len, results[plan.rows[0]])) if folds else len(results[plan.rows[0]][0])
    say(f"\n{split}, {n_rows} test rows, {plan.candidates} candidates, {measured}:\n\n{table}")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--interactions", type=Path, required=True, help="table of events or sequences")
    parser.add_argument("--items", type=Path, required=True, help="table of items with titles")
    parser.add_argument("--split", type=Path, required=True, help="table of LLaRA's held-out rows")
    parser.add_argument("--folds", type=int, default=0, help="folds of all users; 0: the split (default: 0)")
    parser.add_argument(
        "--only", nargs="*", metavar="PART", help="fold0, ... or seed0, ...; without a name datasets alone"
    )
    parser.add_argument(
        "--sequential", default="sasrec", help="system of the ID embeddings (default: sasrec)"
    )
    parser.add_argument("--backbone", default="tiny", help="RSLLM's backbone: name or folder (default: tiny)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="rows of the table")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        action=Seeds,
        default=[0, 1, 2, 3, 4],
        help="seeds of training; folds have the first",
    )
    parser.add_argument("--draws", type=int, default=5, help="candidate sets drawn for each row")
    parser.add_argument(
        "--candidates", type=int, default=20, help="candidates of a row (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=[10, 15], help="epochs of stage 1, and at most of stage 2"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and of table.md")
    arguments = vars(parser.parse_args())
    arguments["epochs"] = tuple(arguments["epochs"])
    how = {name: arguments.pop(name) for name in Plan.__dataclass_fields__}
    with ends_in_one_line("resumes it"):
        main(**arguments, plan=Plan(**how))
