"""Systems on a real data set under protocol A, as a table with CPU time and peak memory.

    python -m experiments.compare --data ml-100k --seeds 0 1 2 --output runs/ml-100k

Protocol A: the parts of each event come from split_A (one column a seed); settings are chosen on validation events; test
events are reported once. Results lie in OUTPUT/results.json and OUTPUT/table.md; rows that are there are not run again.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.files import write_text
from cllm4rec.evaluation import bootstrap_interval
from experiments.commands import command, show, table

ROWS: dict[str, tuple[list[str], list[str] | None]] = {  # name -> flags of pretrain, flags of finetune (None: one stage)
    "CLLM4Rec": ([], []),
    "CLLM4Rec, no pretraining": (["--epochs", "0"], []),
    "CLLM4Rec, no pretraining, sampled": (["--epochs", "0", "--sampled", "4096"], []),
    "CLLM4Rec, no content": (["--content-ratio", "0"], []),
    "CLLM4Rec, paper's settings": (["--preset", "paper", "--max-minutes", "8"], ["--max-minutes", "8"]),
    "iALS": (["--system", "ials"], None),
    "EASE": (["--system", "ease"], None),
    "ItemKNN": (["--system", "itemknn"], None),
    "popularity": (["--system", "popularity"], None),
}
SHOWN = ("recall@20", "recall@40", "ndcg@100", "coverage@20")
REFERENCE = "CLLM4Rec"


def run_row(name: str, data: Path, run: Path, seed: int) -> dict[str, Any]:
    """Train and measure one system; time of all its training commands, and the largest memory of any command."""
    first, second = ROWS[name]
    shutil.rmtree(run, ignore_errors=True)  # what an interrupted call left
    seeded = [] if "--system" in first else ["--seed", str(seed)]
    spent = [command("pretrain", "--dataset", data, "--output", run, *first, *seeded)]
    if second is not None:
        spent.append(command("finetune", "--run", run, *second, *seeded))
    measured = command("evaluate", "--run", run, "--json", run / "test.json", "--per-user", run / "test.parquet")
    return {
        "metrics": json.loads((run / "test.json").read_text())["metrics"],
        "training_cpu_seconds": sum(one.cpu_seconds for one in spent),
        "evaluation_cpu_seconds": measured.cpu_seconds,
        "peak_mib": max(one.peak_mib for one in [*spent, measured]),
    }


def differences(output: Path, name: str, seeds: list[int]) -> np.ndarray:
    """NDCG@100 of the reference minus that of another system, a value a user: the mean over its seeds."""
    both = []
    for seed in seeds:
        runs = [folder(output, system, seed) / "test.parquet" for system in (REFERENCE, name)]
        a, b = (pl.read_parquet(run, columns=["user_id", "ndcg@100"]) for run in runs)
        joined = a.join(b, on="user_id", suffix="_other")
        both.append(joined.select("user_id", gap=pl.col("ndcg@100") - pl.col("ndcg@100_other")))
    return pl.concat(both).group_by("user_id", maintain_order=True).mean()["gap"].to_numpy()


def folder(output: Path, name: str, seed: int) -> Path:
    """Run folder of a row."""
    return output / f"seed{seed}" / name.lower().replace(" ", "-").replace(",", "").replace("'", "")


def summary(output: Path, results: dict[str, Any], names: list[str], seeds: list[int]) -> str:
    """Means over seeds, and the paired difference of the reference to each system with its 95 % interval over users."""
    rows = []
    for name in names:
        own = [results[f"{name}/{seed}"] for seed in seeds]
        cells = [f"{np.mean([one['metrics'][metric] for one in own]):.4f}" for metric in SHOWN]
        gap = "" if name == REFERENCE or REFERENCE not in names else difference_cell(differences(output, name, seeds))
        time = f"{np.mean([one['training_cpu_seconds'] for one in own]):.0f}"
        rows.append([name, *cells, gap, time, f"{max(one['peak_mib'] for one in own):,.0f}"])
    rows.sort(key=lambda row: -float(row[3]))
    return table(["system", *SHOWN, f"ndcg@100 of {REFERENCE} minus this", "training (CPU s)", "peak memory (MiB)"], rows)


def difference_cell(values: np.ndarray) -> str:
    low, high = bootstrap_interval(values)
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def main(data: str, shared: Path, seeds: list[int], names: list[str], output: Path) -> None:
    source = shared / "data" / data
    output.mkdir(parents=True, exist_ok=True)
    noted = output / "results.json"
    results: dict[str, Any] = json.loads(noted.read_text()) if noted.is_file() else {"data": data}
    if results["data"] != data:
        raise SystemExit(f"error: {output} holds results of {results['data']}: name another --output")
    for seed in seeds:
        prepared = output / f"seed{seed}" / "dataset"
        command("prepare", "--interactions", source / "interactions.tsv.gz", "--items", source / "items.tsv.gz",
                "--split", source / "split_A.tsv.gz", "--split-column", f"seed_{seed}", "--output", prepared)  # fmt: skip
        for name in names:
            if f"{name}/{seed}" not in results:
                results[f"{name}/{seed}"] = run_row(name, prepared, folder(output, name, seed), seed)
                write_text(noted, json.dumps(results, indent=2) + "\n")
    text = summary(output, results, names, seeds)
    (output / "table.md").write_text(text + "\n")
    show(f"\n{data}, protocol A, test events, mean over seeds {', '.join(map(str, seeds))}:\n\n{text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-100k", help="folder under SHARED/data with interactions, items and split_A")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("CLLM4REC_SHARED", "../shared")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="columns of split_A, and seeds of training")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="rows of the table")
    parser.add_argument("--output", type=Path, required=True, help="folder of results; what it holds is kept")
    given = parser.parse_args()
    main(given.data, given.shared, given.seeds, given.rows, given.output)
