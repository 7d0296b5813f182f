"""The main job from end to end on a small world made here: python -m experiments.demo [--seed 0] [--output demo]"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import Oracle, taste_world
from cllm4rec.evaluation import measure
from experiments.commands import command, show, table
from experiments.curves import draw

SYSTEMS = ("cllm4rec", "ease", "itemknn", "popularity")
METRICS = ("recall@20", "recall@40", "ndcg@100", "hit_rate@10", "mrr", "coverage@20")
MADE_HERE = "made-by-demo.txt"
BAR = 0.70  # share of the oracle's NDCG@100 that CLLM4Rec has to reach


def main(seed: int, folder: Path, backbone: str) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MADE_HERE).is_file():
        sys.exit(f"error: {folder} holds something that the demonstration did not write: name another --output")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MADE_HERE).write_text("written by experiments/demo.py, which replaces the whole folder\n")
    world = taste_world(seed)
    world.events.write_csv(folder / "reviews.tsv", separator="\t", quote_style="never")
    world.items.write_csv(folder / "books.tsv", separator="\t", quote_style="never")
    show(f"A small world (seed {seed}): {folder}/reviews.tsv with {len(world.events):,} events, {folder}/books.tsv")
    data = folder / "dataset"
    command("prepare", "--interactions", folder / "reviews.tsv", "--items", folder / "books.tsv", "--output", data,
            "--seed", seed)  # fmt: skip
    results, seconds = {}, {}
    for system in SYSTEMS:
        run = folder / system
        seeded = ("--seed", seed) if system == "cllm4rec" else ()
        chosen = ("--backbone", backbone) if system == "cllm4rec" and backbone != "tiny" else ()
        spent = command("pretrain", "--system", system, "--dataset", data, "--output", run, *chosen, *seeded).seconds
        if system == "cllm4rec":
            spent += command("finetune", "--run", run, *seeded).seconds
        command("evaluate", "--run", run, "--split", "test", "--json", run / "test.json")
        results[system] = json.loads((run / "test.json").read_text())["metrics"]
        seconds[system] = f"{spent:.0f}"
    dataset = Dataset.load(data)
    oracle = measure(Oracle(world), dataset.train, dataset.test, dataset.only("train", "validation")).metrics
    user = dataset.user_ids.ids[0]
    command("recommend", "--run", folder / "cllm4rec", "--users", user, "--k", 10, "--output", folder / "top10.csv")
    command("recommend", "--run", folder / "cllm4rec", "--all", "--k", 20, "--output", folder / "recommendations.parquet")
    draw(folder / "cllm4rec", folder / "curves.png")
    show("\nTest events, full ranking of the catalogue, known items masked; training time of the commands in seconds:\n")
    rows = [[name, *(f"{results[name][metric]:.4f}" for metric in METRICS), seconds[name]] for name in SYSTEMS]
    rows.append(["oracle (knows the world)", *(f"{oracle[metric]:.4f}" for metric in METRICS), ""])
    show(table(["system", *METRICS, "seconds"], rows))
    share = results["cllm4rec"]["ndcg@100"] / oracle["ndcg@100"]
    show(f"\nCLLM4Rec reaches {share:.0%} of the oracle's NDCG@100.")
    show_user(dataset, str(user), pl.read_csv(folder / "top10.csv"))
    show(f"\nAll of it lies in {folder}/ (curves.png, recommendations.parquet, the run in cllm4rec/). For your own data: "
         "python -m cllm4rec.prepare --interactions events.csv --items items.csv --output mydata")  # fmt: skip
    if share < BAR:
        sys.exit(f"CLLM4Rec is below {BAR:.0%} of the oracle")


def show_user(dataset: Dataset, user: str, top: pl.DataFrame) -> None:
    """A user's history and top ten, side by side."""
    history = dataset.interactions.history(int(dataset.user_ids.index([user])[0]))
    left = [f"{row['title']} ({row['categories']})" for row in dataset.items[history.tolist()].to_dicts()]
    categories = dict(dataset.items.select("item_id", "categories").iter_rows())
    right = [f"{row['rank']}. {row['title']} ({categories[row['item_id']]})" for row in top.to_dicts()]
    n = max(len(left), len(right))
    rows = list(zip(left + [""] * (n - len(left)), right + [""] * (n - len(right)), strict=True))
    show(f"\n{user}: what was read, and what is recommended")
    for past, next_one in rows:
        show(f"  {past:<68} {next_one}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of training")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write; an earlier one is replaced")
    parser.add_argument("--backbone", default="tiny", help="as pretrain takes it")
    given = parser.parse_args()
    main(given.seed, given.output, given.backbone)
