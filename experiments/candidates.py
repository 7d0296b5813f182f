"""LLaRA's protocol: the next item among 20 candidates; sequential systems and RSLLM.

    python -m experiments.candidates --interactions EVENTS --items ITEMS --split ROWS --output runs/lastfm
    python -m experiments.candidates ... --folds 5 --backbone FOLDER --output runs/lastfm-folds

Without --folds the test rows are those of LLaRA's split. They are few. With --folds each user is measured
once: the last item is the target, the ten before it the history, and rows of the split are taken as they
are. The users are split at random; those of a fold are measured by systems that were trained on others.
One in eight of these others is for validation instead, with the last three items as targets.

Data: tables of events, of items with titles, and of held-out rows (docs/data.md). No recipe makes the splits
of LLaRA: docs/rsllm.md says what LLaRA publishes, and the form of these tables.

Prints a table of HitRatio@1 and ValidRatio: means over training seeds and draws of candidates, with 95 %
intervals over rows. Last are the sequential system, RSLLM, and the language model alone with unified prompts
minus each other row, paired over rows. --against adds each row minus that of another backbone, on the same
rows and candidates. OUTPUT/table.md holds the table. Measured rows are not run again, and interrupted
training resumes. Other tables and other settings are refused. Where a row answers in words, the prompts of
all name the candidates.

RSLLM is built on the sequential system that has the best NDCG@100 on validation rows, all items ranked, in
each fold or seed. It is the row "sequential system"; a line below the table names it. --sequential names
those to choose from. BSARec reads each prefix as an example of full length, and takes longer than SASRec.

RSLLM trains in batches of four users. Rows have histories of at most ten items, training users longer ones.

RSLLM reads titles, and adds the score of the sequential system to that of C_user. "Unified prompts" and "soft
tokens" say what the prompts hold instead. "No C_item" trains with --alpha 0. "Language model alone" leaves
that score out. Items are always scored by the vectors of the sequential system, which may read words. Without
title tokens there is no C_item.

Seeds and folds may run at the same time, each in a call of its own with the same OUTPUT: --only names them,
once a call with --only alone has made the datasets. The table has all that was measured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.commands.entry import say
from cllm4rec.data.readers.split_tables import PART_NAMES
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.files.locks import locked
from cllm4rec.files.writing import write_text
from experiments.candidate_folds import read_table, read_users, write_folds
from experiments.candidate_runs import (
    PLAN_FILE,
    REFERENCE,
    ROWS,
    SEQUENTIAL,
    SYSTEMS,
    UNIFIED_ALONE,
    Part,
    Plan,
    base_of,
    check_settings,
    evaluate,
    is_trained,
    measured,
    train,
    write_settings,
)
from experiments.commands import Seeds, argument_parser, ends_in_one_line
from experiments.json_files import read_object
from experiments.prepared import PREPARE_SECONDS, prepare_once
from experiments.report import difference_cell, markdown_table

COMPARED = (SEQUENTIAL, REFERENCE, UNIFIED_ALONE)  # rows minus each other one
OF_ROWS = ("candidates", "draws", "folds", "seed", "--interactions", "--items", "--split")  # settings
Measured = Mapping[str, pl.DataFrame]  # part -> metrics, a row per test row


def values_of(of_parts: Measured, names: Sequence[str], metric: str, folds: bool) -> np.ndarray:
    """A metric of each row, (n_rows,): of the rows of the named folds, or the mean over training seeds."""
    values = [of_parts[name][metric].to_numpy() for name in names]
    return np.concatenate(values) if folds else np.mean(values, axis=0)


def difference(first: Measured, other: Measured, folds: bool) -> str:
    """HitRatio@1 of `first` minus that of `other`, paired over the rows of the parts that both have."""
    shared = [part for part in other if part in first]
    if not shared:
        return ""
    values, of_other = (values_of(each, shared, "hit_ratio@1", folds) for each in (first, other))
    return difference_cell(values - of_other)


def summary(
    results: Mapping[str, Measured], folds: bool, against: Mapping[str, Measured] | None = None
) -> str:
    """Table of the systems, each over the parts on which it was measured, and paired differences.

    Args:
        results: row -> part -> metrics.
        folds: whether the parts are folds, not training seeds.
        against: results of another backbone.
    """
    compared, rows = [name for name in COMPARED if name in results], []
    for name, of_parts in results.items():
        hits, valid = (
            values_of(of_parts, [*of_parts], metric, folds) for metric in ("hit_ratio@1", "valid_ratio")
        )
        low, high = bootstrap_interval(hits)
        means = [float(table["hit_ratio@1"].to_numpy().mean()) for table in of_parts.values()]
        interval, spread = f"[{low:.4f}, {high:.4f}]", f"{min(means):.4f} to {max(means):.4f}"
        further = [
            "" if reference == name else difference(results[reference], of_parts, folds)
            for reference in compared
        ]
        if against is not None:
            further.append(difference(of_parts, against[name], folds) if name in against else "")
        measured_on = ", ".join(of_parts)
        cells = [f"{hits.mean():.4f}", interval, spread, f"{valid.mean():.4f}", *further]
        rows.append([name, measured_on, str(len(hits)), *cells])
    of, over = ("folds", "over folds") if folds else ("training seeds", "over seeds")
    header = ["system", of, "test rows", "HitRatio@1", "95 % over rows", over, "ValidRatio"]
    differences = [f"{name} minus this" for name in compared]
    if against is not None:
        differences.append("this minus that of --against")
    return markdown_table([*header, *differences], rows)


def bases(output: Path, plan: Plan, names: Sequence[str]) -> str:
    """What is said below the table about the sequential system of each part, where several were compared."""
    trained = [name for name in names if all(is_trained(output / name / run) for run in plan.bases)]
    if not plan.reads_base or len(plan.bases) == 1 or not trained:
        return ""
    named = ", ".join(f"{base_of(output / name, plan)} ({name})" for name in trained)
    return f"\n\nSequential system, by validation events: {named}."


def check_validation_rows(split: Path) -> None:
    """Refuse held-out rows of which none is for validation.

    Raises:
        SystemExit: there is none, or the file is no table of rows.
    """
    table = read_table(split, ("split",))
    if "validation" not in {PART_NAMES.get(part) for part in table["split"]}:
        raise SystemExit(f"error: {split} has no validation rows to choose by: name one --sequential")


def parts(
    tables: dict[str, Path], seeds: list[int], folds: pl.DataFrame | None, n_folds: int, output: Path
) -> list[Part]:
    """The training seeds on the split as it stands, or the folds of all users; their datasets are made.

    Args:
        tables: flag -> file.
        seeds: of training; folds have the first.
        folds: the users of the folds; None: the split as it stands.
        n_folds: number of folds.
        output: folder of the results.
    """
    if folds is None:
        prepare_once(output / "dataset", tables, {})
        return [Part(f"seed{seed}", output / "dataset", seed) for seed in seeds]
    written = write_folds(folds, n_folds, output / "folds")
    for folder in written:
        files = {"--interactions": folder / "interactions.tsv", "--split": folder / "split.tsv"}
        prepare_once(folder / "dataset", files | {"--items": tables["--items"]}, {})
    return [Part(folder.name, folder / "dataset", seeds[0]) for folder in written]


def measured_elsewhere(output: Path, settings: Mapping[str, object]) -> Mapping[str, Measured]:
    """What `measured` finds in the folder of another backbone.

    Args:
        output: the folder.
        settings: those of this folder; what decides the rows must be the same there.

    Raises:
        SystemExit: there are no results, or they are of other rows or candidates.
    """
    if not (others := read_object(output / PLAN_FILE, "--against")):
        raise SystemExit(f"error: --against {output} has no {PLAN_FILE}: give the output of an earlier call")
    for name in OF_ROWS:
        if (expected := settings.get(name)) != (other := others.get(name)):
            raise SystemExit(
                f"error: --against {output} has another {name}: {other}, not {expected}: give one with the "
                "same tables and settings"
            )
    return measured(output)


def main(
    interactions: Path,
    items: Path,
    split: Path,
    seeds: list[int],
    output: Path,
    plan: Plan,
    folds: int = 0,
    only: Sequence[str] | None = None,
    against: Path | None = None,
) -> None:
    plan.check()
    tables = {"--interactions": interactions, "--items": items, "--split": split}
    settings = plan.settings(tables, folds, seeds[0])
    check_settings(settings, output)
    others = None if against is None else measured_elsewhere(against, settings)
    chooses = plan.reads_base and len(plan.bases) > 1
    if chooses and not folds:
        check_validation_rows(split)
    users = read_users(interactions, split, folds) if folds else None
    names = [f"fold{number}" for number in range(folds)] or [f"seed{seed}" for seed in seeds]
    if unknown := [name for name in only or () if name not in names]:
        raise SystemExit(f"error: --only {unknown[0]}: the parts are {', '.join(names)}")
    output.mkdir(parents=True, exist_ok=True)
    with locked((output / PLAN_FILE).resolve(), wait=PREPARE_SECONDS):  # another call may make the datasets
        check_settings(settings, output)
        known = parts(tables, seeds, users, folds, output)
        if chooses and folds:
            for part in known:
                check_validation_rows(part.dataset.with_name("split.tsv"))
        write_settings(settings, output)
    for part in known:
        if only is None or part.name in only:
            train(part, output / part.name, plan)
            for name in plan.rows:
                evaluate(output / part.name, name, plan)
    if results := measured(output):
        table = summary(results, folds > 0, others) + bases(output, plan, [part.name for part in known])
        write_text(output / "table.md", table + "\n")
        say(f"\n{split}, {plan.candidates} candidates:\n\n{table}")


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
        "--sequential",
        nargs="+",
        choices=[*SYSTEMS],
        default=[*SYSTEMS],
        help="systems of which the best on validation rows gives the ID embeddings (default: all)",
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
        "--epochs",
        type=int,
        nargs=2,
        default=[0, 3],
        help="epochs of stage 1, and at most of stage 2 (default: 0 3)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and of table.md")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OUTPUT",
        help="output with another backbone, to compare each row with",
    )
    arguments = vars(parser.parse_args())
    arguments["epochs"] = tuple(arguments["epochs"])
    how = {name: arguments.pop(name) for name in Plan.__dataclass_fields__}
    with ends_in_one_line("resumes it"):
        main(**arguments, plan=Plan(**how))
