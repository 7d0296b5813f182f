"""Next-item prediction on a real data set: RSLLM, its ablations and sequential baselines.

    python -m experiments.next_item --data datasets/beauty --output runs/beauty-shuffled --shuffle-ties 0
    python -m experiments.next_item --data datasets/beauty --output runs/beauty

Leave-last-out in time order, full ranking. Settings are chosen on validation events; test events are
reported once.

Data: interactions.tsv.gz and items.tsv.gz, which `experiments.recipes` wrote to DATA.

Prints a table: metrics, paired difference from RSLLM and training time; and a second one, the
differences of users whose last two items have the same time, and of all others. OUTPUT/table.md holds both.
Measured rows are not run again, and interrupted training resumes; other data is refused. Calls with
different --rows may share an OUTPUT once SASRec and "RSLLM, stage 1" are in it.
"""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.randomness import permutation
from cllm4rec.training.run_folder import RunFolder
from experiments.commands import argument_parser, run_command
from experiments.prepared import prepare_once
from experiments.report import (
    SystemRow,
    comparison_table,
    difference_cell,
    evaluate,
    is_evaluated,
    markdown_table,
    paired_differences,
    read_metrics,
    run_folder,
)

STAGE_1 = "RSLLM, stage 1"  # most rows of RSLLM continue this run; not a row of the table
SHUFFLED = "RSLLM, titles shuffled"
PLACEHOLDERS = {
    "sequential": "SASRec",
    "random": "SASRec, untrained",
}  # in flags -> row whose run folder is meant
EASE = ("--regularization", "200")  # close to the values that the grids chose on validation events of split A
ITEMKNN = ("--neighbours", "500", "--shrinkage", "100")
ROWS: dict[
    str, tuple[list[str], list[str] | None]
] = {  # name -> flags of pretrain ([]: STAGE_1), of finetune
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
    SHUFFLED: (["--system", "rsllm", "--sequential", "{sequential}"], []),
}
NOT_EVALUATED = (STAGE_1, "SASRec, untrained")
CONVENTIONAL = ("SASRec", "EASE, decayed", "ItemKNN, decayed")  # rows of the second table
METRICS = ("hit_rate@10", "ndcg@10", "ndcg@100")
RANKED_BY = "ndcg@10"
REFERENCE = "RSLLM"


def prepare(source: Path, dataset: Path, ties: dict[str, object], shuffle_titles: bool = False) -> Path:
    """The dataset folder of the tables; `shuffle_titles` permutes the titles among the items."""
    items = source / "items.tsv.gz"
    if shuffle_titles:
        table = pl.read_csv(items, separator="\t", quote_char=None, infer_schema=False)
        items = dataset.parent / "items-titles-shuffled.tsv"
        titles = table["title"].gather(permutation(len(table), 0))
        table.with_columns(titles).write_csv(items, separator="\t", quote_style="never")
    tables = {"--interactions": source / "interactions.tsv.gz", "--items": items}
    prepare_once(dataset, tables, {"--split": "leave-last-out", **ties})
    return dataset


def run_row(name: str, dataset: Path, output: Path, seed: int, finetuning: list[str]) -> None:
    """Train and evaluate a system; training resumes, and an evaluated row is left as it is."""
    run, (pretrain_flags, finetune_flags) = run_folder(output, name), ROWS[name]
    if is_evaluated(run):
        return
    folders = {key: str(run_folder(output, row)) for key, row in PLACEHOLDERS.items()}
    seed_flags = [] if {"ease", "itemknn"} & set(pretrain_flags) else ["--seed", str(seed)]
    if pretrain_flags:
        flags = [flag.format(**folders) for flag in pretrain_flags]
        run_command("pretrain", "--dataset", dataset, "--output", run, *flags, *seed_flags, "--resume")
    elif not run.is_dir():
        shutil.copytree(run_folder(output, STAGE_1), run)
    if finetune_flags is not None:
        run_command("finetune", "--run", run, *finetune_flags, *finetuning, *seed_flags, "--resume")
    if name not in NOT_EVALUATED:
        evaluate(run)


def same_day(dataset: Dataset) -> pl.DataFrame:
    """Columns `user_id` and `same_day`: whether the last two items of the user have the same time."""
    events = dataset.interactions
    last = events.indptr[1:][np.diff(events.indptr) > 2] - 1
    assert events.times is not None
    same = events.times[last] == events.times[last - 1]
    return pl.DataFrame({"user_id": dataset.user_ids.names(events.users[last]), "same_day": same})


def training_seconds(run: Path) -> str:
    """Wall time of all epochs, validation included; "" for systems without epochs."""
    records = RunFolder.open(run).metrics()
    return f"{sum(record.seconds for record in records):.0f}" if records else ""


def differences(output: Path, name: str) -> pl.DataFrame:
    """The reference minus a system, a row per user."""
    return paired_differences(run_folder(output, REFERENCE), run_folder(output, name), RANKED_BY)


def summary(output: Path, dataset: Path) -> str:
    """Tables of the evaluated rows; the second needs the reference and a conventional system."""
    names = [name for name in ROWS if is_evaluated(run_folder(output, name))]
    rows = []
    for name in names:
        run, paired = run_folder(output, name), name != REFERENCE and REFERENCE in names
        values = differences(output, name)["difference"].to_numpy() if paired else None
        rows.append(SystemRow(name, read_metrics(run), values, [training_seconds(run)]))
    tables = [comparison_table(rows, METRICS, RANKED_BY, REFERENCE, ["training (s)"])]
    conventional = [name for name in CONVENTIONAL if name in names]
    if REFERENCE in names and conventional:
        tables.append(day_table(output, conventional, same_day(Dataset.load(dataset))))
    return "\n\n".join(tables)


def day_table(output: Path, names: list[str], days: pl.DataFrame) -> str:
    """The reference minus each system, by whether the user's last two items have the same time."""
    lines, counts = [], []
    for name in names:
        joined = differences(output, name).join(days, on="user_id")
        groups = [
            joined.filter(pl.col("same_day") == same)["difference"].to_numpy() for same in (True, False)
        ]
        lines.append([name, *map(difference_cell, groups)])
        counts = [f"{len(group):,} users" for group in groups]
    header = [f"{RANKED_BY} of {REFERENCE} minus", f"same day ({counts[0]})", f"other day ({counts[1]})"]
    return markdown_table(header, lines)


def main(
    data: Path,
    shuffle_ties: int | None,
    rows: list[str],
    seed: int,
    output: Path,
    finetuning: list[str],
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    ties: dict[str, object] = {} if shuffle_ties is None else {"--shuffle-ties": shuffle_ties}
    dataset = prepare(data, output / "dataset", ties)
    for name in rows:
        used = dataset
        if name == SHUFFLED:
            used = prepare(data, output / "dataset-titles-shuffled", ties, shuffle_titles=True)
        run_row(name, used, output, seed, finetuning)
    tables = summary(output, dataset)
    (output / "table.md").write_text(tables + "\n")
    order = "as it comes" if not ties else f"at random among events of one day (seed {shuffle_ties})"
    say(f"\n{data.resolve().name}, each user's last item, order {order}, seed {seed}:\n\n{tables}")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that a recipe wrote")
    parser.add_argument("--shuffle-ties", type=int, help="passed to prepare")
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="rows to run, in order"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of training")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and of table.md")
    parser.add_argument(
        "--finetuning", nargs="*", default=[], help="further flags of every finetune, without their dashes"
    )
    arguments = parser.parse_args()
    flags = [f"--{text}" if i % 2 == 0 else text for i, text in enumerate(arguments.finetuning)]
    main(**vars(arguments) | {"finetuning": flags})
