"""The commands from end to end on a small synthetic world.

    python -m experiments.demo [--seed 0] [--output demo]

Data: 500 users and 300 items, generated with the seed.

Prints the commands and their output; a table of test metrics with those of the oracle, which ranks by the
probabilities that generated the events; and the history and top ten of a user. Exit status 1 if CLLM4Rec
is below 70 % of the oracle's NDCG@100. All files are in OUTPUT.
"""

import argparse
import json
import shutil
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from experiments.commands import run_command
from experiments.curves import draw
from experiments.oracle import Oracle
from experiments.report import markdown_table

SYSTEMS = ("cllm4rec", "ease", "itemknn", "popularity")
METRICS = ("recall@20", "recall@40", "ndcg@100", "hit_rate@10", "mrr@100", "coverage@20")
MARKER = "made-by-demo.txt"
LEAST_SHARE = 0.70  # of the oracle's NDCG@100, for CLLM4Rec


def main(seed: int, folder: Path, backbone: str) -> None:
    make_folder(folder)
    world = taste_world(seed)
    world.events.write_csv(folder / "reviews.tsv", separator="\t", quote_style="never")
    world.items.write_csv(folder / "books.tsv", separator="\t", quote_style="never")
    n_events = len(world.events)
    say(f"A small world (seed {seed}): {folder}/reviews.tsv with {n_events:,} events, {folder}/books.tsv")
    tables = ("--interactions", folder / "reviews.tsv", "--items", folder / "books.tsv")
    run_command("prepare", *tables, "--output", folder / "dataset", "--seed", seed)
    results, seconds = {}, {}
    for system in SYSTEMS:
        results[system], seconds[system] = run_system(system, folder, seed, backbone)
    dataset = Dataset.load(folder / "dataset")
    oracle = measure(Oracle(world, dataset), dataset).metrics
    run, user = folder / "cllm4rec", dataset.user_ids.ids[0]
    run_command("recommend", "--run", run, "--users", user, "--k", 10, "--output", folder / "top10.csv")
    run_command("recommend", "--run", run, "--all", "--k", 20, "--output", folder / "recommendations.parquet")
    draw(run, folder / "curves.png")
    say(
        "\nTest events, full ranking of the catalogue, known items masked; "
        "training time of the commands in seconds:\n"
    )
    rows = [
        [name, *(f"{results[name][metric]:.4f}" for metric in METRICS), seconds[name]] for name in SYSTEMS
    ]
    rows.append(["oracle (knows the world)", *(f"{oracle[metric]:.4f}" for metric in METRICS), ""])
    say(markdown_table(["system", *METRICS, "seconds"], rows))
    share = results["cllm4rec"]["ndcg@100"] / oracle["ndcg@100"]
    say(f"\nCLLM4Rec reaches {share:.0%} of the oracle's NDCG@100.")
    print_user(dataset, str(user), pl.read_csv(folder / "top10.csv"))
    say(
        f"\nAll files are in {folder}/ (curves.png, recommendations.parquet, the run in cllm4rec/). "
        "For your own data: "
        "cllm4rec prepare --interactions events.csv --items items.csv --output mydata"
    )
    if share < LEAST_SHARE:
        sys.exit(f"CLLM4Rec is below {LEAST_SHARE:.0%} of the oracle")


def make_folder(folder: Path) -> None:
    """An empty folder in which an earlier demonstration is replaced. A link is followed.

    Raises:
        SystemExit: the folder holds other files.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        sys.exit(
            f"error: {folder} holds something that the demonstration did not write: name another --output"
        )
    target = folder.resolve()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (folder / MARKER).write_text("written by experiments/demo.py, which replaces the whole folder\n")


def run_system(system: str, folder: Path, seed: int, backbone: str) -> tuple[dict[str, Any], str]:
    """Train and evaluate a system: its test metrics, and the seconds of the training commands."""
    run, neural = folder / system, system == "cllm4rec"
    seed_flags = ("--seed", seed) if neural else ()
    backbone_flags = ("--backbone", backbone) if neural and backbone != "tiny" else ()
    flags = (
        "--system",
        system,
        "--dataset",
        folder / "dataset",
        "--output",
        run,
        *backbone_flags,
        *seed_flags,
    )
    seconds = run_command("pretrain", *flags).seconds
    if neural:
        seconds += run_command("finetune", "--run", run, *seed_flags).seconds
    run_command("evaluate", "--run", run, "--split", "test", "--json", run / "test.json")
    return json.loads((run / "test.json").read_text())["metrics"], f"{seconds:.0f}"


def print_user(dataset: Dataset, user: str, top: pl.DataFrame) -> None:
    """Print a user's history and top ten in two columns."""
    history = dataset.interactions.history(int(dataset.user_ids.index([user])[0]))
    left = [f"{row['title']} ({row['categories']})" for row in dataset.items[history.tolist()].to_dicts()]
    categories = dict(dataset.items.select("item_id", "categories").iter_rows())
    right = [f"{row['rank']}. {row['title']} ({categories[row['item_id']]})" for row in top.to_dicts()]
    say(f"\n{user}: what was read, and what is recommended")
    for read, recommended in zip_longest(left, right, fillvalue=""):
        say(f"  {read:<68} {recommended}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of training")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write or to replace")
    parser.add_argument("--backbone", default="tiny", help="passed to pretrain")
    arguments = parser.parse_args()
    main(arguments.seed, arguments.output, arguments.backbone)
