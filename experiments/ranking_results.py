"""Results of `experiments.full_ranking` in CSV files: runs, their slices, and differences of rows."""

import csv
import io
import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.files.locks import locked
from cllm4rec.files.writing import write_text
from cllm4rec.training.run_folder import RunFolder
from experiments.json_files import read_object
from experiments.protocols import PROTOCOLS
from experiments.ranking_rows import BASES
from experiments.ranking_runs import BY_LANGUAGE
from experiments.ranking_sets import read_results
from experiments.recipes.recipe import EVENTS, ITEMS
from experiments.report import METRICS_FILE, is_evaluated, mean_differences, run_folder
from experiments.tuning.trials import DATASET, RUN

DATA, ENCODER = '"$DATA"', '"$ENCODER"'
LOCK_SECONDS = 600.0  # in which another process writes its results
Line = dict[str, str]  # column -> text
RUNS, DIFFERENCES, SLICES = "runs.csv", "differences.csv", "slices.csv"
KEYS = {  # file -> columns of which two lines differ in at least one
    RUNS: ("set", "protocol", "row", "seed"),
    DIFFERENCES: ("set", "protocol", "reference", "row", "metric", "seeds"),
    SLICES: ("set", "protocol", "row", "seed", "by", "slice"),
}


def result_line(place: tuple[str, str, str, int], result: Mapping[str, Any], run: Path) -> Line:
    """A run: its metrics with their 95 % intervals, its costs, and what it was measured with.

    Args:
        place: name of the set, protocol, row of the table and seed of the split.
        result: of the row in results.json.
        run: its folder, evaluated on test events.
    """
    _, protocol, _, seed = place
    measured, trained = read_object(run / METRICS_FILE), trained_run(run, result)
    description = RunFolder.open(trained).description
    quality: dict[str, float | str] = {}
    for metric, value in measured["metrics"].items():
        low, high = measured["intervals"].get(metric, ("", ""))
        quality |= {metric: value, f"{metric} low": low, f"{metric} high": high}
    versions = ", ".join(f"{name} {version}" for name, version in description.versions.items())
    cells = {
        **dict(zip(KEYS[RUNS], place, strict=True)),
        "system": description.system,
        "users": measured["n_users"],
        **quality,
        "tuning_seconds": result.get("tuning_seconds") or "",
        "training_cpu_seconds": result["training_cpu_seconds"],
        "evaluation_cpu_seconds": result["evaluation_cpu_seconds"],
        "peak_mib": result["peak_mib"],
        "model_numbers": model_numbers(trained),
        "encoder": result.get("encoder") or "",
        "versions": versions,
        **result["dataset"],
        "code_sha256": result["code_sha256"],
        "command": command(result["flags"], seed, PROTOCOLS[protocol].split_flags(seed))
        + (f" {shlex.join(BY_LANGUAGE)}" if trained != run else ""),
    }
    return texts(cells)


def trained_run(run: Path, result: Mapping[str, Any]) -> Path:
    """Folder of the trained run that a row measures: `run`, the row's own one, or that of another row."""
    return run_folder(run.parent, result["run_of"]) if result.get("run_of") else run


def difference_line(
    place: tuple[str, str, str, str, str, str], values: np.ndarray, versions: Collection[str]
) -> Line:
    """The reference minus a row: the mean over users, with its 95 % bootstrap interval.

    Args:
        place: name of the set, protocol, reference, row of the table, metric and seeds of the splits.
        values: (n_users,), each the mean over the user's seeds.
        versions: hashes of the package with which the reference was measured.
    """
    low, high = bootstrap_interval(values)
    cells = {
        **dict(zip(KEYS[DIFFERENCES], place, strict=True)),
        "users": len(values),
        "difference": float(values.mean()),
        "low": low,
        "high": high,
        "reference_code_sha256": " ".join(sorted(versions)),
    }
    return texts(cells)


def listed(seeds: Iterable[int]) -> str:
    """Seeds as in the column of that name: `0 1 2`."""
    return " ".join(map(str, sorted(seeds)))


def shared_seeds(runs: Sequence[Line], set_name: str, protocol: str) -> set[int]:
    """Seeds of a set that all measured main rows have; means over others do not compare."""
    seeds_of, shown = defaultdict(set), PROTOCOLS[protocol].shown
    for line in runs:
        if (line["set"], line["protocol"]) == (set_name, protocol) and line["row"] in shown:
            seeds_of[line["row"]].add(int(line["seed"]))
    return set.intersection(*seeds_of.values()) if seeds_of else set()


def slice_lines(place: tuple[str, str, str, int], run: Path) -> list[Line]:
    """The slices of a run, as `evaluate` writes them.

    Args:
        place: name of the set, protocol, row of the table and seed of the split.
        run: its folder, evaluated on test events.
    """
    slices: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in read_object(run / METRICS_FILE)["slices"]:
        slices[each["by"]].append(each)
    return [
        texts(
            {
                **dict(zip(KEYS[SLICES], (*place, by, number), strict=True)),
                **{name: each[name] for name in ("lowest", "highest", "n_users")},
                **{metric: each["metrics"][metric] for metric in PROTOCOLS[place[1]].compared},
            }
        )
        for by, group in slices.items()
        for number, each in enumerate(group)
    ]


def texts(cells: Mapping[str, object]) -> Line:
    """Cells as text: numbers with a fraction have six digits, None is blank."""
    known = {name: "" if value is None else value for name, value in cells.items()}
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in known.items()}


def model_numbers(run: Path) -> int:
    """Numbers that the last stage of a run holds, its adapters included."""
    total = 0
    for path in RunFolder.open(run).stage_folder().rglob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def command(flags: Sequence[Sequence[str] | None], seed: int, split: Sequence[str] = ()) -> str:
    """The commands of a run in one line, with shell variables: DATA, DATASET, RUN, ENCODER, keys of BASES.

    Args:
        flags: of pretrain, and of finetune; None: no such stage.
        seed: of the split; CLLM4Rec trains with it too.
        split: flags of prepare, which reads the tables in DATA; none: the dataset is a recipe's.
    """
    first, second = flags
    seeded = [] if "--system" in (first or []) else ["--seed", str(seed)]
    tables = ["--interactions", f"{DATA}/{EVENTS}.gz", "--items", f"{DATA}/{ITEMS}.gz"]
    stages = [("prepare", [*tables, *split, "--output", DATASET])] if split else []
    stages += [("pretrain", [*("--dataset", DATASET, "--output", RUN), *quoted([*(first or []), *seeded])])]
    if second is not None:
        stages.append(("finetune", ["--run", RUN, *quoted([*second, *seeded])]))
    stages.append(("evaluate", ["--run", RUN]))
    return " && ".join(" ".join(["cllm4rec", stage, *arguments]) for stage, arguments in stages)


def quoted(flags: Sequence[str]) -> list[str]:
    """Flags as typed in a shell.

    The value of --encoder, and of --backbone if it is pretrained, is the variable ENCODER. The run of a row
    of BASES is the variable that has its key as name.
    """

    def shown(before: str, flag: str) -> str:
        if before == "--encoder" or (before == "--backbone" and "/" in flag):
            return ENCODER
        return f'"${flag}"' if flag in BASES else shlex.quote(flag)

    return [shown(*pair) for pair in zip(["", *flags], flags, strict=False)]


def read_lines(file: Path) -> list[Line]:
    """The lines of a file of results.

    Raises:
        SystemExit: there is none, or it is another table.
    """
    if not file.is_file():
        beside = " of rows that are measured beside CLLM4Rec" if file.name == DIFFERENCES else ""
        raise SystemExit(f"error: {file} is not there: experiments.full_ranking --results writes it{beside}")
    with file.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        if not {*KEYS[file.name]} <= {*(reader.fieldnames or ())}:
            missing = ", ".join(sorted({*KEYS[file.name]} - {*(reader.fieldnames or ())}))
            raise SystemExit(
                f"error: {file} is no table of results (no column {missing}): name another folder of results"
            )
        return list(reader)


def write_lines(file: Path, lines: Sequence[Line], is_stale: Callable[[Line], bool] | None = None) -> None:
    """Write lines into a file, in place of those of the same key, or of the same run; others stay.

    Args:
        file: one of KEYS.
        lines: new ones.
        is_stale: whether an older line is left out.

    Raises:
        SystemExit: the file is another table.
    """
    key = KEYS[file.name]
    before = read_lines(file) if file.is_file() else []
    new = {tuple(line[name] for name in key): line for line in lines}
    of_run = KEYS[RUNS] if file.name == SLICES else key  # a run measured anew may have fewer slices
    written = {tuple(line[name] for name in of_run) for line in lines}
    kept = {}
    for line in before:
        if is_stale is not None and is_stale(line):
            continue
        place = tuple(line[name] for name in key)
        if place in new or tuple(line[name] for name in of_run) not in written:
            kept[place] = line
    kept |= new
    if not kept:
        return
    columns = dict.fromkeys(name for line in [*before[:1], *kept.values()] for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept.values())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text.getvalue())


def write_results(
    folder: Path, set_name: str, protocol: str, output: Path, reference: str | None = None
) -> None:
    """Write all measured runs of a set, and their differences from the reference of the protocol.

    A difference is over all seeds that the two rows share. If the main rows share fewer, another one is over
    those. Differences from another reference in the files are written anew if it is among the runs.

    Args:
        folder: of the CSV files. Several processes may write them, one after another.
        set_name: of the dataset.
        protocol: key of PROTOCOLS.
        output: folder of the set and of the protocol, with results.json. Runs without metrics are left out.
        reference: a further row that is compared with all others.

    Raises:
        ValueError: another process has written the files for `LOCK_SECONDS`.
        SystemExit: one of the files is another table.
    """
    about, results = PROTOCOLS[protocol], read_results(output)
    runs, slices, seeds_of = [], [], defaultdict(set)
    for key, result in results.items():
        name, _, seed = key.rpartition("/")
        run, place = run_folder(output / f"seed{seed}", name), (set_name, protocol, name, int(seed))
        if not (is_evaluated(run) and is_evaluated(trained_run(run, result))):  # a folder was removed
            continue
        seeds_of[name].add(int(seed))
        runs.append(result_line(place, result, run))
        slices += slice_lines(place, run)

    if not runs:
        return

    def is_stale(line: Line) -> bool:
        """Whether it is over some of the seeds of these runs: those that are still asked for are above."""
        rows = line["row"], line["reference"]
        both = set.intersection(*(seeds_of.get(name, set()) for name in rows))
        here = (line["set"], line["protocol"]) == (set_name, protocol)
        return here and {*map(int, line["seeds"].split())} <= both

    with locked(folder / RUNS, wait=LOCK_SECONDS):
        before = {name: read_lines(folder / name) for name in KEYS if (folder / name).is_file()}
        write_lines(folder / RUNS, runs)
        write_lines(folder / SLICES, slices)
        in_table = shared_seeds(read_lines(folder / RUNS), set_name, protocol)
        known = [line["reference"] for line in before.get(DIFFERENCES, []) if is_stale(line)]
        references, differences = {about.reference, reference or about.reference, *known}, []
        for first, name in product(sorted(references & {*seeds_of}), seeds_of):
            both = seeds_of[first] & seeds_of[name]
            of_lines = {tuple(sorted(some)) for some in (both, both & in_table) if some}
            for some, metric in product(sorted(of_lines) if name != first else (), about.compared):
                place_of_difference = set_name, protocol, first, name, metric, listed(some)
                versions = {results[f"{first}/{seed}"]["code_sha256"] for seed in some}
                values = mean_differences(output, first, name, some, metric)
                differences.append(difference_line(place_of_difference, values, versions))
        write_lines(folder / DIFFERENCES, differences, is_stale)
