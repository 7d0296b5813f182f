"""Top-k lists from a run, with the ids and titles put in: python -m cllm4rec.recommend --help"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cllm4rec.commands.entry import log, n_launched, run, say
from cllm4rec.commands.flags import parse
from cllm4rec.commands.options import BACKBONE_FLAG, VERIFY
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.folders import replace_folder
from cllm4rec.files.writing import check_table_name, write_table
from cllm4rec.models import load
from cllm4rec.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cllm4rec.models.base import Recommendations

BATCH_SIZE = 512  # users that are scored at a time


@dataclass
class RecommendOptions:
    """Flags of recommend. One of --users, --users-file and --all says for whom."""

    run: str = field(metadata={"help": "run folder"})
    users: str | None = field(
        default=None, metadata={"help": "user ids with commas between; ids that hold one: --users-file"}
    )
    users_file: str | None = field(default=None, metadata={"help": "file of user ids, one a line"})
    all: bool = field(default=False, metadata={"help": "all users of the dataset"})
    k: int = field(default=20, metadata={"ge": 1, "help": "items for each user"})
    output: str | None = field(
        default=None,
        metadata={"help": "file to write (.parquet, .csv or .jsonl); under a launcher a folder of parts (.parquet). Else "
                          "standard output"},
    )  # fmt: skip
    dataset: str | None = field(default=None, metadata={"help": "the run's dataset, if it has moved"})
    verify: bool = field(default=False, metadata=VERIFY)
    backbone: str | None = field(default=None, metadata=BACKBONE_FLAG)


def main(argv: Sequence[str]) -> None:
    (options,) = parse(
        "recommend", "Top-k lists from a run; known items are left out.", [RecommendOptions], argv
    )
    if options.output and n_launched() == 1:  # several processes write a folder
        check_table_name(options.output)
    dataset = RunFolder.open(options.run).dataset(options.dataset)
    users = _users(options, dataset)
    if n_launched() > 1:
        _write_parts(options, dataset, users)
        return
    table = _table(options, dataset, users)
    if options.output:
        write_table(table, options.output)
        log.info("%s rows for %s users -> %s", f"{len(table):,}", f"{len(users):,}", options.output)
    else:
        say(table.write_csv(separator="\t").rstrip("\n"))


def _table(options: RecommendOptions, dataset: Dataset, users: np.ndarray) -> pl.DataFrame:
    model = load(options.run, verify=options.verify, backbone=options.backbone)
    batches = model.recommend_batches(users, dataset, options.k, BATCH_SIZE)
    return pl.concat([recommendation_table(part, dataset) for part in batches])


def _write_parts(options: RecommendOptions, dataset: Dataset, users: np.ndarray) -> None:
    """Under a launcher: each process recommends for a stretch of the users and writes its part of the table, a folder.

    BatchGroup hold whole batches, so that they are, one behind the other, what one process writes.
    """
    from accelerate.utils import broadcast_object_list

    from cllm4rec.training.device import make_accelerator

    if Path(options.output or "").suffix != ".parquet":
        raise ValueError(
            "several processes write a part each: name their folder with --output, ending in .parquet"
        )
    output, state = Path(options.output or ""), make_accelerator()  # which also chooses the process's own GPU
    n_batches = -(-len(users) // BATCH_SIZE)
    first, end = (n_batches * (state.process_index + i) // state.num_processes * BATCH_SIZE for i in (0, 1))
    with replace_folder(output, "part-00000.parquet") if state.is_main_process else nullcontext() as new:
        (folder,) = broadcast_object_list([str(new)])  # of the main process, which made it
        table = _table(options, dataset, users[first:end])
        table.write_parquet(Path(folder) / f"part-{state.process_index:05d}.parquet")
        state.wait_for_everyone()
    log.info(
        "part %d of %d: %s users -> %s",
        state.process_index,
        state.num_processes,
        f"{min(end, len(users)) - first:,}",
        output,
    )


def _users(options: RecommendOptions, dataset: Dataset) -> np.ndarray:
    """Numbers of the users asked for."""
    given = [options.users is not None, options.users_file is not None, options.all]
    if sum(given) != 1:
        raise ValueError("say for whom with one of --users A,B, --users-file FILE and --all")
    if options.all:
        return np.arange(dataset.n_users)
    if options.users is not None:
        ids = options.users.split(",")
    else:
        if not Path(options.users_file or "").is_file():
            raise ValueError(f"{options.users_file}: there is no such file")
        try:
            ids = [
                line for line in Path(options.users_file or "").read_text("utf-8-sig").splitlines() if line
            ]
        except UnicodeDecodeError as error:
            raise ValueError(f"{options.users_file}: not UTF-8 text: {error}") from error
        if not ids:
            raise ValueError(f"{options.users_file}: the file names no user")
    return dataset.user_ids.index(ids, "user")


def recommendation_table(part: "Recommendations", dataset: Dataset) -> pl.DataFrame:
    """Rows user_id, item_id, rank (from 1), score, and title where there is one; places without an item are left out."""
    rows, ranks = np.nonzero(part.items >= 0)
    items = part.items[rows, ranks]
    columns = {
        "user_id": dataset.user_ids.names(part.users[rows]),
        "item_id": dataset.item_ids.names(items),
        "rank": ranks + 1,
        "score": part.scores[rows, ranks],
    }
    if "title" in dataset.items.columns:
        columns["title"] = dataset.items["title"].gather(items)
    return pl.DataFrame(columns)


if __name__ == "__main__":
    run(main)
