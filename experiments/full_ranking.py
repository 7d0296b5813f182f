"""Full ranking on a real data set: CLLM4Rec, its ablations and the baselines, under protocol A.

    python -m experiments.full_ranking --data datasets/ml-100k --seeds 0 1 2 --output runs/ml-100k

Protocol A: `split_A` assigns each event to train, validation or test (one column a seed). Settings are
chosen on validation events; test events are reported once.

Data: the dataset folders seed0, seed1, ... that `experiments.recipes` wrote to DATA.

--tuned names the OUTPUT of `experiments.tune`. A system whose settings were searched on this set has the
chosen ones then; the name of its row ends with "tuned".

Prints a table, means over seeds: metrics, paired difference from CLLM4Rec, CPU time and peak memory.
OUTPUT/table.md holds the table, OUTPUT/results.json every measured row with the hashes of its dataset.
Measured rows are not run again. Those of other datasets or settings are refused, and those of other code are
named below the table. A row that fails is reported and left out; the next call tries it again.

--results names a folder of CSV files. runs.csv gets a line for each run: all metrics with their 95 %
intervals over users, costs, versions, hashes and commands. slices.csv gets its slices by activity of users,
by popularity of held-out items and by day. differences.csv gets CLLM4Rec minus each row, paired over users:
over the seeds that both have, and over those that all rows of the README's table have. Lines of other runs
stay.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.writing import write_text
from experiments.commands import CommandFailed, Seeds, argument_parser, run_command
from experiments.ranking_results import RANKED_BY, REFERENCE, mean_differences, write_results
from experiments.report import (
    SystemRow,
    comparison_table,
    evaluate,
    read_metrics,
    run_folder,
)
from experiments.tuning.chosen import best_settings
from experiments.tuning.conditions import code_hash
from experiments.tuning.spaces import FIRST_STAGE
from experiments.tuning.spaces import SPACES as SEARCHED

ENCODER = "ENCODER"  # stands for --encoder in the flags of rows
Flags = tuple[list[str], list[str] | None]  # of pretrain, and of finetune; None: no stage 2
ROWS: dict[str, Flags] = {
    "CLLM4Rec": ([], []),
    "CLLM4Rec, no pretraining": (["--epochs", "0"], []),
    "CLLM4Rec, no pretraining, sampled": (["--epochs", "0", "--sampled", "4096"], []),
    "CLLM4Rec, no content": (["--content-ratio", "0"], []),
    "CLLM4Rec, no texts in vectors": (["--item-text", "none"], []),
    "CLLM4Rec, no mutual regularisation": (["--mutual", "0"], []),
    "CLLM4Rec, masked items in the full softmax": (["--targets", "masked"], []),
    "CLLM4Rec, all items as targets": (["--targets", "all"], []),
    "CLLM4Rec, no linear path": (["--linear", "none"], []),
    "CLLM4Rec, no layer": (["--backbone", "0x128"], []),
    "CLLM4Rec, encoder": (["--encoder", ENCODER], []),
    "CLLM4Rec, encoder, no words": (["--encoder", ENCODER, "--item-text", "vectors"], []),
    "CLLM4Rec, paper's settings": (["--preset", "paper", "--max-minutes", "8"], ["--max-minutes", "8"]),
    "bag": (["--system", "bag"], None),
    "bag, encoder": (["--system", "bag", "--encoder", ENCODER], None),
    "AlphaRec": (["--system", "alpharec"], None),
    "EASE with text prior": (["--system", "ease", "--text-prior"], None),
    "EASE with text prior, encoder": (["--system", "ease", "--text-prior", "--encoder", ENCODER], None),
    "Mult-VAE": (["--system", "multvae"], None),
    "RecVAE": (["--system", "recvae"], None),
    "iALS": (["--system", "ials"], None),
    "EASE": (["--system", "ease"], None),
    "ItemKNN": (["--system", "itemknn"], None),
    "popularity": (["--system", "popularity"], None),
}
SPACES = {  # name -> the space in which its settings are searched
    "bag": "bag",
    "AlphaRec": "alpharec",
    "EASE with text prior": "ease-text",
    "Mult-VAE": "multvae",
    "RecVAE": "recvae",
    "iALS": "ials",
    "EASE": "ease",
    "ItemKNN": "itemknn",
}
QUICK = ("CLLM4Rec", "bag", "ItemKNN", "popularity")  # 17 minutes of one core on Beauty
METRICS = ("recall@20", "recall@40", "ndcg@100", "coverage@20")
TUNED = ", tuned"  # the end of the names of rows with chosen settings


@dataclass(frozen=True)
class Row:
    """A row to measure.

    Attributes:
        flags: of the commands.
        tuning_seconds: wall time of the search of its settings; None where they were not searched.
    """

    flags: Flags
    tuning_seconds: float | None = None


def rows_to_measure(
    names: list[str], encoder: str | None, tuned: Path | None, data: Path, data_sha256: str
) -> dict[str, Row]:
    """The rows by name; those with chosen settings have names that end with TUNED.

    Args:
        names: of the rows.
        encoder: of the rows that have one.
        tuned: OUTPUT of `experiments.tune`; None: all rows have the defaults of the package.
        data: folder that a recipe wrote.
        data_sha256: of its datasets.

    Raises:
        SystemExit: a row needs an encoder, `tuned` has no table of a row, or its tables are damaged.
    """
    if encoder is None and any(ENCODER in ROWS[name][0] for name in names):
        raise SystemExit("error: rows with an encoder need --encoder: name a model, or choose other --rows")
    rows = {}
    for name in names:
        pretrain, finetune = ROWS[name]
        chosen, space = None, SPACES.get(name)
        if tuned is not None and space is not None:
            chosen = best_settings(tuned, data.resolve().name, space, data_sha256)
        if chosen is not None and space is not None:
            first = ["--system", SEARCHED[space].system, *chosen.flags[FIRST_STAGE]]
            rows[name + TUNED] = Row((first, chosen.flags.get("finetune", finetune)), chosen.seconds)
        else:
            first = [encoder if flag == ENCODER and encoder else flag for flag in pretrain]
            rows[name] = Row((first, finetune))
    if tuned is not None and not any(name.endswith(TUNED) for name in rows):
        raise SystemExit(
            f"error: {tuned} has no trials of these --rows on {data.resolve().name}: name another --tuned"
        )
    return rows


def run_row(flags: Flags, dataset: Path, run: Path, seed: int) -> dict[str, Any]:
    """Train and evaluate a system.

    Returns:
        Test metrics, CPU seconds of training and of evaluation, and the largest peak memory of a command.
    """
    pretrain_flags, finetune_flags = flags
    shutil.rmtree(run, ignore_errors=True)  # left by an interrupted call
    seed_flags = [] if "--system" in pretrain_flags else ["--seed", str(seed)]
    costs = [run_command("pretrain", "--dataset", dataset, "--output", run, *pretrain_flags, *seed_flags)]
    if finetune_flags is not None:
        costs.append(run_command("finetune", "--run", run, *finetune_flags, *seed_flags))
    evaluation = evaluate(run)
    return {
        "metrics": read_metrics(run),
        "training_cpu_seconds": sum(cost.cpu_seconds for cost in costs),
        "evaluation_cpu_seconds": evaluation.cpu_seconds,
        "peak_mib": max(cost.peak_mib for cost in [*costs, evaluation]),
    }


def summary(output: Path, results: dict[str, Any], names: list[str], seeds: list[int]) -> str:
    """Table of the systems: means over seeds, peak memory as a maximum."""
    rows = []
    for name in names:
        measured = [results[f"{name}/{seed}"] for seed in seeds]
        metrics = {key: float(np.mean([row["metrics"][key] for row in measured])) for key in METRICS}
        seconds = np.mean([row["training_cpu_seconds"] for row in measured])
        peak = max(row["peak_mib"] for row in measured)
        paired = name != REFERENCE and REFERENCE in names
        differences = mean_differences(output, name, seeds) if paired else None
        rows.append(SystemRow(name, metrics, differences, [f"{seconds:.0f}", f"{peak:,.0f}"]))
    further = ["training (CPU s)", "peak memory (MiB)"]
    return comparison_table(rows, METRICS, RANKED_BY, REFERENCE, further)


def dataset_hashes(data: Path, seeds: list[int]) -> dict[int, dict[str, str]]:
    """Hashes of the dataset folder of each seed: of its content and of its split."""
    for seed in seeds:
        if not (data / f"seed{seed}").is_dir():
            raise SystemExit(f"error: {data} has no folder seed{seed}: experiments.recipes --seeds makes it")
    return {seed: asdict(Dataset.load(data / f"seed{seed}").hashes) for seed in seeds}


def main(
    data: Path,
    seeds: list[int],
    rows: list[str],
    output: Path,
    encoder: str | None = None,
    tuned: Path | None = None,
) -> list[str]:
    """Measure the rows, write and print the table.

    Returns:
        The runs that failed, as `row/seed`.
    """
    hashes = dataset_hashes(data, seeds)
    planned = rows_to_measure(rows, encoder, tuned, data, hashes[seeds[0]]["data_sha256"])
    code = code_hash()
    output.mkdir(parents=True, exist_ok=True)
    results_file = output / "results.json"
    results: dict[str, Any] = json.loads(results_file.read_text()) if results_file.is_file() else {}
    keys = {f"{name}/{seed}": (name, seed) for seed in seeds for name in planned}
    for key, (name, seed) in keys.items():
        if key in results and results[key].get("dataset") != hashes[seed]:
            raise SystemExit(
                f"error: {output} holds {key}, measured on another dataset than {data}/seed{seed}: name "
                "another --output"
            )
        if key in results and results[key].get("flags") != list(planned[name].flags):
            raise SystemExit(f"error: {output} holds {key} with other settings: name another --output")
    failed = []
    for key, (name, seed) in keys.items():
        if key not in results:
            run = run_folder(output / f"seed{seed}", name)
            try:
                row = run_row(planned[name].flags, data / f"seed{seed}", run, seed)
            except CommandFailed as failure:
                say(f"{key}: {failure}")
                failed.append(key)
                continue
            results[key] = {
                **row,
                "tuning_seconds": planned[name].tuning_seconds,
                "dataset": hashes[seed],
                "flags": planned[name].flags,
                "code_sha256": code,
            }
            write_text(results_file, json.dumps(results, indent=2) + "\n")
    measured = {key: place for key, place in keys.items() if key in results}
    complete = [name for name in planned if all(f"{name}/{seed}" in measured for seed in seeds)]
    table = summary(output, results, complete, seeds)
    old = dict.fromkeys(
        name for key, (name, _) in measured.items() if results[key].get("code_sha256") != code
    )
    if old:
        table += f"\n\nMeasured with other code of the package than the present: {', '.join(old)}."
    if failed:
        table += f"\n\nFailed, so that their rows are left out: {', '.join(failed)}."
    (output / "table.md").write_text(table + "\n")
    shown_seeds = ", ".join(map(str, seeds))
    say(f"\n{data.resolve().name}, protocol A, test events, mean over seeds {shown_seeds}:\n\n{table}")
    return failed


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that a recipe wrote")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        action=Seeds,
        help=(
            "of the splits, and of the training of CLLM4Rec; the other systems train with seed 0 (default: 0 "
            "to 2)"
        ),
    )
    own = [name for name, (flags, _) in ROWS.items() if ENCODER not in flags]
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        choices=list(ROWS),
        help=f"rows of the table (default: those without an encoder): {'; '.join(ROWS)}",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"seed 0 and the rows {', '.join(QUICK)}, unless --seeds or --rows say otherwise",
    )
    parser.add_argument("--encoder", help="name or folder of the model that reads texts in rows with one")
    parser.add_argument("--tuned", type=Path, help="OUTPUT of experiments.tune; rows have chosen settings")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--results", type=Path, help="folder of CSV files that get a line for each run")
    arguments = vars(parser.parse_args())
    results_folder, is_quick = arguments.pop("results"), arguments.pop("quick")
    arguments["seeds"] = arguments["seeds"] or ([0] if is_quick else [0, 1, 2])
    arguments["rows"] = arguments["rows"] or (list(QUICK) if is_quick else own)
    failed_runs = main(**arguments)
    if results_folder is not None:
        write_results(results_folder, arguments["data"], arguments["output"])
    if failed_runs:
        raise SystemExit(f"error: {len(failed_runs)} runs failed, as reported above")
