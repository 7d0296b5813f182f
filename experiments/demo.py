"""The commands from end to end on a small synthetic world.

    python -m experiments.demo [--seed 0] [--output demo]

Data: 500 readers and some 650 books, most of them rarely bought, generated with the seed.

Prints the commands and their output; a table of test metrics with those of the oracle, which ranks by the
probabilities that generated the events; and the history and top ten of a user. A column of the table has
NDCG@100 for the test events of books with at most five training events: there texts matter most. Exit
status 1 if CLLM4Rec is below 70 % of the oracle's NDCG@100. All files are in OUTPUT.
"""

import shutil
import sys
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import polars as pl

import cllm4rec
from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.storage import PARTS
from cllm4rec.data.synthetic import TasteWorld, taste_world
from cllm4rec.evaluation import measure
from cllm4rec.models.base import Recommender
from experiments.commands import argument_parser, ends_in_one_line, run_command
from experiments.curves import draw
from experiments.oracle import Oracle
from experiments.report import markdown_table, run_folder

ROWS = {  # name -> flags of pretrain
    "CLLM4Rec": ("--system", "cllm4rec"),
    "bag": ("--system", "bag"),
    "EASE with text prior": ("--system", "ease", "--text-prior"),
    "EASE": ("--system", "ease"),
    "ItemKNN": ("--system", "itemknn"),
    "popularity": ("--system", "popularity"),
}
SEEDED = ("CLLM4Rec", "bag")  # the others draw nothing at random
METRICS = ("recall@20", "recall@40", "ndcg@100", "hit_rate@10", "mrr@100", "coverage@20")
MARKER = "made-by-demo.txt"
LEAST_SHARE = 0.70  # of the oracle's NDCG@100, for CLLM4Rec
FEW = 5  # training events of a rare book, at most


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        metrics: name -> mean over the test users.
        rare_ndcg: NDCG@100 of the test events of rare books.
        seconds: of the training commands, as text.
    """

    metrics: dict[str, float]
    rare_ndcg: float
    seconds: str = ""


def main(seed: int, folder: Path, backbone: str) -> None:
    make_folder(folder)
    world = bookshop(seed)
    world.events.write_csv(folder / "reviews.tsv", separator="\t", quote_style="never")
    world.items.write_csv(folder / "books.tsv", separator="\t", quote_style="never")
    n_events = len(world.events)
    say(f"A small world (seed {seed}): {folder}/reviews.tsv with {n_events:,} events, {folder}/books.tsv")
    tables = ("--interactions", folder / "reviews.tsv", "--items", folder / "books.tsv")
    run_command("prepare", *tables, "--output", folder / "dataset", "--seed", seed)
    seconds = {name: train(name, folder, seed, backbone) for name in ROWS}
    dataset = Dataset.load(folder / "dataset")
    rare = with_rare_test_items(dataset)
    rows = {name: row(cllm4rec.load(run_folder(folder, name)), dataset, rare, seconds[name]) for name in ROWS}
    rows["oracle (knows the world)"] = best = row(Oracle(world, dataset), dataset, rare)
    run, user = run_folder(folder, "CLLM4Rec"), dataset.user_ids.ids[0]
    run_command("recommend", "--run", run, "--users", user, "--k", 10, "--output", folder / "top10.csv")
    run_command("recommend", "--run", run, "--all", "--k", 20, "--output", folder / "recommendations.parquet")
    draw(run, folder / "curves.png")
    print_table(rows, len(dataset.test.interactions), len(rare.test.interactions))
    share = rows["CLLM4Rec"].metrics["ndcg@100"] / best.metrics["ndcg@100"]
    say(f"\nCLLM4Rec reaches {share:.0%} of the oracle's NDCG@100.")
    print_user(dataset, str(user), pl.read_csv(folder / "top10.csv"))
    say(
        f"\nAll files are in {folder}/ (curves.png, recommendations.parquet, the run in cllm4rec/). "
        "For your own data: "
        "cllm4rec prepare --interactions events.csv --items items.csv --output mydata"
    )
    if share < LEAST_SHARE:
        sys.exit(f"CLLM4Rec is below {LEAST_SHARE:.0%} of the oracle")


def bookshop(seed: int) -> TasteWorld:
    """The world of the demonstration. About a tenth of its test events are of books with few other events."""
    return taste_world(seed, n_items=700, n_rare=550)


def with_rare_test_items(dataset: Dataset) -> Dataset:
    """The dataset with only those test events whose items have at most `FEW` training events."""
    n_training = np.bincount(dataset.train.interactions.items, minlength=dataset.n_items)
    common = n_training[dataset.interactions.items] > FEW
    keep = ~(common & (dataset.part == PARTS.index("test")))
    return replace(dataset, interactions=dataset.interactions.select(keep), part=dataset.part[keep])


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


def train(name: str, folder: Path, seed: int, backbone: str) -> str:
    """Train the system of a row by the commands, and evaluate CLLM4Rec: the seconds of training, as text."""
    run, neural = run_folder(folder, name), name == "CLLM4Rec"
    seed_flags = ("--seed", seed) if name in SEEDED else ()
    backbone_flags = ("--backbone", backbone) if neural and backbone != "tiny" else ()
    output = ("--dataset", folder / "dataset", "--output", run)
    seconds = run_command("pretrain", *ROWS[name], *output, *backbone_flags, *seed_flags).seconds
    if neural:
        seconds += run_command("finetune", "--run", run, *seed_flags).seconds
        run_command("evaluate", "--run", run, "--split", "test", "--json", run / "test.json")
    return f"{seconds:.0f}"


def row(model: Recommender, dataset: Dataset, rare: Dataset, seconds: str = "") -> Row:
    """The metrics of a system on all test events, and on those of `rare`."""
    rare_ndcg = measure(model, rare, metrics=["ndcg@100"]).metrics["ndcg@100"]
    return Row(measure(model, dataset).metrics, rare_ndcg, seconds)


def print_table(rows: dict[str, Row], n_test: int, n_rare: int) -> None:
    """Print the metrics of all systems; n_test and n_rare count the test events."""
    say(
        f"\n{n_test:,} test events, full ranking of the catalogue, known items masked; "
        "training time of the commands in seconds.\n"
        f"rare: ndcg@100 of the {n_rare:,} test events of books with at most {FEW} training events.\n"
    )
    lines = [
        [name, *(f"{each.metrics[metric]:.4f}" for metric in METRICS), f"{each.rare_ndcg:.4f}", each.seconds]
        for name, each in rows.items()
    ]
    say(markdown_table(["system", *METRICS, "rare", "seconds"], lines))


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
    parser = argument_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of training")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write or to replace")
    parser.add_argument("--backbone", default="tiny", help="backbone of CLLM4Rec, passed to pretrain")
    arguments = parser.parse_args()
    with ends_in_one_line():
        main(arguments.seed, arguments.output, arguments.backbone)
