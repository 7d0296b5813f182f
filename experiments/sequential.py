"""What comes next, on a real data set: RSLLM and its ablations beside conventional systems, each user's last item held out.

    python -m experiments.sequential --output runs/beauty-shuffled --shuffle-ties 0
    python -m experiments.sequential --output runs/beauty

Leave-last-out in time order, full ranking. Settings are chosen on validation events; test events are reported once. What lies
in OUTPUT is taken up: rows that are measured are not run again, and a training that was interrupted goes on. Calls with
different --rows may share an OUTPUT once SASRec and "RSLLM, stage 1" are there.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.randomness import permutation
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.training.checkpoint import RunFolder
from experiments.commands import command, show, table

STAGE_1 = "RSLLM, stage 1"  # what most rows of RSLLM go on from; no row of the table
NEEDS = {"sequential": "SASRec", "random": "SASRec, untrained"}
EASE = ("--regularization", "200")  # near what validation events of split A chose, where the grids were gone through
ITEMKNN = ("--neighbours", "500", "--shrinkage", "100")
ROWS: dict[str, tuple[list[str], list[str] | None]] = {  # name -> flags of pretrain ([] for stage 1 above), flags of finetune
    "SASRec": (["--system", "sasrec"], None),
    "SASRec, untrained": (["--system", "sasrec", "--epochs", "0"], None),
    "EASE, decayed": (["--system", "ease", "--decay", "auto", *EASE], None),
    "ItemKNN, decayed": (["--system", "itemknn", "--decay", "auto", *ITEMKNN], None),
    STAGE_1: (["--system", "rsllm", "--sequential", "{sequential}"], None),
    "RSLLM": ([], []),
    "RSLLM, text only": ([], ["--prompt", "text"]),
    "RSLLM, ID only": ([], ["--prompt", "ids"]),
    "RSLLM, no C_item": ([], ["--alpha", "0"]),
    "RSLLM, no C_user": ([], ["--beta", "0"]),
    "RSLLM, no stage 1": (["--system", "rsllm", "--sequential", "{sequential}", "--epochs", "0"], []),
    "RSLLM, random e_j": (["--system", "rsllm", "--sequential", "{random}"], []),
    "RSLLM, titles shuffled": (["--system", "rsllm", "--sequential", "{sequential}"], []),
}
UNTABLED = (STAGE_1, "SASRec, untrained")
SHOWN = ("hit_rate@10", "ndcg@10", "ndcg@100")
REFERENCE = "RSLLM"


def folder(output: Path, name: str) -> Path:
    """Run folder of a row."""
    return output / name.lower().replace(" ", "-").replace(",", "")


def prepare(source: Path, output: Path, name: str, ties: list[str], titles_shuffled: bool = False) -> Path:
    """The dataset, or one whose titles stand at other items."""
    items = source / "items.tsv.gz"
    if titles_shuffled:
        read = pl.read_csv(items, separator="\t", quote_char=None, infer_schema=False)
        items = output / "items-titles-shuffled.tsv"
        order = permutation(len(read), 0)
        read.with_columns(read["title"].gather(order)).write_csv(items, separator="\t", quote_style="never")
    command("prepare", "--interactions", source / "interactions.tsv.gz", "--items", items, "--split", "leave-last-out",
            *ties, "--output", output / name)  # fmt: skip
    return output / name


def run_row(name: str, data: Path, output: Path, seed: int, finetuning: list[str]) -> None:
    """Train a system, or go on with that, and measure it."""
    run, (first, second) = folder(output, name), ROWS[name]
    if (run / "test.json").is_file():
        return
    needed = {key: str(folder(output, row)) for key, row in NEEDS.items()}
    seeded = [] if {"ease", "itemknn"} & set(first) else ["--seed", str(seed)]
    if first:  # --resume begins, goes on, or finds that it has ended
        flags = [flag.format(**needed) for flag in first]
        command("pretrain", "--dataset", data, "--output", run, *flags, *seeded, "--resume")
    elif not run.is_dir():
        shutil.copytree(folder(output, STAGE_1), run)
    if second is not None:
        command("finetune", "--run", run, *second, *finetuning, *seeded, "--resume")
    if name not in UNTABLED:
        command("evaluate", "--run", run, "--json", run / "test.json", "--per-user", run / "test.parquet")


def same_day(data: Path) -> pl.DataFrame:
    """For each user whether the last item carries the time of the one before."""
    dataset = Dataset.load(data)
    events = dataset.interactions
    last = events.indptr[1:][np.diff(events.indptr) > 2] - 1
    assert events.times is not None
    same = events.times[last] == events.times[last - 1]
    return pl.DataFrame({"user_id": dataset.user_ids.names(events.users[last]), "same_day": same})


def gaps(output: Path, name: str, metric: str) -> pl.DataFrame:
    """The reference minus another system, a value a user."""
    both = [pl.read_parquet(folder(output, row) / "test.parquet", columns=["user_id", metric]) for row in (REFERENCE, name)]
    joined = both[0].join(both[1], on="user_id", suffix="_other")
    return joined.select("user_id", gap=pl.col(metric) - pl.col(f"{metric}_other"))


def cell(values: np.ndarray) -> str:
    """A mean and its 95 % interval over users."""
    low, high = bootstrap_interval(values)
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def trained_seconds(run: Path) -> str:
    """Wall time of all epochs, validation included; "" for systems that have none."""
    lines = RunFolder.open(run).metrics()
    return f"{sum(line['seconds'] for line in lines):.0f}" if lines else ""


def summary(output: Path, data: Path) -> str:
    """The rows that are measured, and where the reference gains on its own SASRec."""
    names = [name for name in ROWS if (folder(output, name) / "test.json").is_file()]
    rows = []
    for name in names:
        found = json.loads((folder(output, name) / "test.json").read_text())["metrics"]
        gap = "" if name == REFERENCE or REFERENCE not in names else cell(gaps(output, name, "ndcg@10")["gap"].to_numpy())
        rows.append([name, *(f"{found[metric]:.4f}" for metric in SHOWN), gap, trained_seconds(folder(output, name))])
    rows.sort(key=lambda row: -float(row[2]))
    text = table(["system", *SHOWN, f"ndcg@10 of {REFERENCE} minus this", "training (s)"], rows)
    if REFERENCE in names:
        days, lines = same_day(data), []
        for name in [one for one in ("SASRec", "EASE, decayed", "ItemKNN, decayed") if one in names]:
            found_gaps = gaps(output, name, "ndcg@10").join(days, on="user_id")
            parts = [found_gaps.filter(pl.col("same_day") == same)["gap"].to_numpy() for same in (True, False)]
            lines.append([name, *(cell(part) for part in parts)])
            counts = [len(part) for part in parts]
        header = [f"ndcg@10 of {REFERENCE} minus", f"same day ({counts[0]:,} users)", f"other day ({counts[1]:,} users)"]
        text += "\n\n" + table(header, lines)
    return text


def main(data: str, shared: Path, ties: int | None, names: list[str], seed: int, output: Path, finetuning: list[str]) -> None:
    source = shared / "data" / data
    output.mkdir(parents=True, exist_ok=True)
    flags = [] if ties is None else ["--shuffle-ties", str(ties)]
    prepared = output / "dataset"
    if not prepared.is_dir():
        prepare(source, output, "dataset", flags)
    for name in names:
        used = prepared
        if name == "RSLLM, titles shuffled":
            used = output / "dataset-titles-shuffled"
            if not used.is_dir():
                prepare(source, output, used.name, flags, titles_shuffled=True)
        run_row(name, used, output, seed, finetuning)
    text = summary(output, prepared)
    (output / "table.md").write_text(text + "\n")
    order = "as it comes" if ties is None else f"at random among events of one day (seed {ties})"
    show(f"\n{data}, each user's last item, order {order}, seed {seed}:\n\n{text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty-p5", help="folder under SHARED/data with interactions and items")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("CLLM4REC_SHARED", "../shared")))
    parser.add_argument("--shuffle-ties", type=int, help="as prepare takes it")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="what to run, in this order")
    parser.add_argument("--seed", type=int, default=0, help="seed of training")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and of table.md")
    parser.add_argument("--finetuning", nargs="*", default=[], help="further flags of all finetunings, without their dashes")
    given = parser.parse_args()
    main(given.data, given.shared, given.shuffle_ties, given.rows, given.seed, given.output,
         [f"--{flag}" if i % 2 == 0 else flag for i, flag in enumerate(given.finetuning)])  # fmt: skip
