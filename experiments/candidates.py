"""LLaRA's protocol: the next item among 20 candidates, on LLaRA's own splits; SASRec and RSLLM.

    python -m experiments.candidates --interactions train_sequences.tsv --items items.tsv \
        --split heldout.tsv --output runs/lastfm

Data: tables of events, of items with titles, and of held-out rows (docs/data.md). No recipe makes the splits
of LLaRA: docs/rsllm.md says what LLaRA publishes, and the form of these tables.

Prints a table of HitRatio@1 and ValidRatio on the test rows: means over training seeds and draws of
candidates, with 95 % intervals over rows. OUTPUT/table.md holds it. Measured rows are not run again, and
interrupted training resumes; other data is refused.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.commands.entry import say
from cllm4rec.evaluation import bootstrap_interval
from experiments.commands import Seeds, argument_parser, run_command
from experiments.prepared import prepare_once
from experiments.report import difference_cell, markdown_table

ROWS = {  # name -> run, --by of evaluate
    "SASRec": ("sasrec", "scores"),
    "RSLLM, C_user": ("rsllm", "scores"),
    "RSLLM, likelihood of titles": ("rsllm", "likelihood"),
    "RSLLM, free generation": ("rsllm", "generation"),
    "RSLLM, constrained generation": ("rsllm", "constrained"),
}


def train(dataset: Path, parent: Path, seed: int, candidates: int, epochs: tuple[int, int]) -> None:
    """Train SASRec, and RSLLM on its embeddings; RSLLM's prompts name the candidates."""
    sasrec, rsllm = parent / "sasrec", parent / "rsllm"
    common = ["--dataset", dataset, "--seed", seed, "--resume"]
    run_command("pretrain", "--system", "sasrec", "--output", sasrec, *common)
    prompts = ["--sequential", sasrec, "--candidates", candidates]
    run_command("pretrain", "--system", "rsllm", "--output", rsllm, *prompts, "--epochs", epochs[0], *common)
    run_command("finetune", "--run", rsllm, "--epochs", epochs[1], "--seed", seed, "--resume")


def evaluate(parent: Path, name: str, candidates: int, draws: int) -> pl.DataFrame:
    """Metrics of a system, a row per test row; evaluated unless the file exists."""
    run, by = ROWS[name]
    values = parent / f"{run}-{by}.parquet"
    if not values.is_file():
        protocol = ("--candidates", candidates, "--draws", draws, "--by", by)
        files = ("--json", values.with_suffix(".json"), "--per-user", values)
        run_command("evaluate", "--run", parent / run, *protocol, *files)
    return pl.read_parquet(values)


def summary(results: dict[str, list[pl.DataFrame]]) -> str:
    """Table of the systems, and the paired difference of RSLLM from SASRec, from the results of each seed."""
    rows, hit_ratios = [], {}
    for name, by_seed in results.items():
        hits, valid = (
            np.mean([table[metric].to_numpy() for table in by_seed], axis=0)
            for metric in ("hit_ratio@1", "valid_ratio")
        )  # (n_rows,) each
        hit_ratios[name] = hits
        low, high = bootstrap_interval(hits)
        error = hits.std(ddof=1) / np.sqrt(len(hits))
        means = [float(table["hit_ratio@1"].to_numpy().mean()) for table in by_seed]
        interval, spread = f"[{low:.4f}, {high:.4f}]", f"{min(means):.4f} to {max(means):.4f}"
        rows.append([name, f"{hits.mean():.4f}", f"{error:.4f}", interval, spread, f"{valid.mean():.4f}"])
    header = ["system", "HitRatio@1", "standard error", "95 % over rows", "over seeds", "ValidRatio"]
    difference = difference_cell(hit_ratios["RSLLM, C_user"] - hit_ratios["SASRec"])
    return f"{markdown_table(header, rows)}\n\nRSLLM, C_user minus SASRec, paired over rows: {difference}"


def main(
    interactions: Path,
    items: Path,
    split: Path,
    seeds: list[int],
    draws: int,
    candidates: int,
    epochs: tuple[int, int],
    output: Path,
) -> None:
    dataset = output / "dataset"
    output.mkdir(parents=True, exist_ok=True)
    prepare_once(dataset, {"--interactions": interactions, "--items": items, "--split": split}, {})
    results: dict[str, list[pl.DataFrame]] = {name: [] for name in ROWS}
    for seed in seeds:
        parent = output / f"seed{seed}"
        train(dataset, parent, seed, candidates, epochs)
        for name in ROWS:
            results[name].append(evaluate(parent, name, candidates, draws))
    table = summary(results)
    (output / "table.md").write_text(table + "\n")
    evaluation = json.loads((output / f"seed{seeds[0]}" / "sasrec-scores.json").read_text())
    protocol = evaluation["protocol"].split("; chosen")[0]
    n_rows, shown_seeds = len(results["SASRec"][0]), ", ".join(map(str, seeds))
    say(f"\n{split}, {n_rows} test rows, training seeds {shown_seeds}: {protocol}.\n\n{table}")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--interactions", type=Path, required=True, help="table of events or sequences")
    parser.add_argument("--items", type=Path, required=True, help="table of items with titles")
    parser.add_argument("--split", type=Path, required=True, help="table of LLaRA's held-out rows")
    parser.add_argument(
        "--seeds", type=int, nargs="+", action=Seeds, default=[0, 1, 2, 3, 4], help="seeds of training"
    )
    parser.add_argument("--draws", type=int, default=5, help="candidate sets drawn for each row")
    parser.add_argument(
        "--candidates", type=int, default=20, help="candidates of a row (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=[10, 15], help="of stage 1, and at most of stage 2"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and of table.md")
    arguments = parser.parse_args()
    main(**vars(arguments) | {"epochs": tuple(arguments.epochs)})
