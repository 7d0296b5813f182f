"""Write top-k lists of a run, with external ids and titles: python -m cllm4rec.recommend --help"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cllm4rec.commands.entry import log, n_launched, run, say
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.data.dataset import Dataset
from cllm4rec.files.folders import replace_folder
from cllm4rec.files.writing import check_table_name, write_table
from cllm4rec.list_filters import ListFilters, excluded_items, read_ids
from cllm4rec.messages import counted
from cllm4rec.models import load
from cllm4rec.settings import setting
from cllm4rec.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cllm4rec.models.base import Ranking

USERS_AT_ONCE = 512


@dataclass
class RecommendOptions:
    """Flags of recommend. Exactly one of --users, --users-file and --all names the users."""

    run: str = setting(metavar="FOLDER", help="run folder")
    users: str | None = setting(
        None, metavar="IDS", help="user ids separated by commas; ids that contain a comma need --users-file"
    )
    users_file: str | None = setting(None, metavar="FILE", help="file of user ids, one per line")
    all: bool = setting(False, help="all users of the dataset")
    k: int = setting(20, ge=1, help="maximum length of a list")
    output: str | None = setting(
        None,
        metavar="FILE",
        help=(
            "file to write (.parquet, .csv or .jsonl), standard output by default; under a launcher a "
            "folder (named .parquet) with a file for each process"
        ),
    )
    dataset: str | None = setting(None, metavar="FOLDER", help=DATASET)
    verify: bool = setting(False, help=VERIFY)
    backbone: str | None = setting(None, metavar="FOLDER", help=BACKBONE)


@dataclass(frozen=True)
class Request:
    """Lists to make.

    Attributes:
        options: the flags.
        folder: the run.
        dataset: input events, and ids.
        users: user numbers (n,).
        excluded: bool (n_items,), items that no list may hold.
    """

    options: RecommendOptions
    folder: RunFolder
    dataset: Dataset
    users: np.ndarray
    excluded: np.ndarray


def main(argv: Sequence[str]) -> None:
    with CommandLine("recommend", argv) as line:
        description = "Write top-k lists of a run, without the items of each user's events."
        options, filters = line.parse(description, [RecommendOptions, ListFilters])
        # Several processes write a folder.
        if options.output and n_launched() == 1:
            check_table_name(options.output)
        folder = RunFolder.open(options.run)
        dataset = folder.dataset(options.dataset)
        users = _users(options, dataset)
        request = Request(options, folder, dataset, users, excluded_items(filters, dataset.item_ids))
        if n_launched() > 1:
            _write_shares(request)
            return
        table = _table(request, users)
        if options.output:
            write_table(table, options.output)
            log.info("%s -> %s", _sizes(table, users), options.output)
        else:
            say(table.write_csv(separator="\t").rstrip("\n"))


def _table(request: Request, users: np.ndarray) -> pl.DataFrame:
    """The lists of some of the users (B,)."""
    options, dataset = request.options, request.dataset
    model = load(request.folder, verify=options.verify, backbone=options.backbone)
    batches = model.rank_batches(users, dataset, options.k, USERS_AT_ONCE, excluded_items=request.excluded)
    return pl.concat([recommendation_table(batch, dataset) for batch in batches])


def _write_shares(request: Request) -> None:
    """Under a launcher, each process writes the lists of a contiguous share of the users into one folder.

    Shares consist of whole batches, so that the files together equal the table that one process writes.
    """
    from accelerate.utils import broadcast_object_list

    from cllm4rec.training.device import make_accelerator, wait_for_everyone

    output, users = Path(request.options.output or ""), request.users
    if output.suffix != ".parquet":
        raise ValueError(
            "several processes write a file each: name their folder with `output`, ending in .parquet"
        )
    # This also chooses the GPU of the process.
    accelerator = make_accelerator()
    process, n_processes = accelerator.process_index, accelerator.num_processes
    n_batches = -(-len(users) // USERS_AT_ONCE)
    bounds = [n_batches * (process + i) // n_processes for i in (0, 1)]
    share = users[bounds[0] * USERS_AT_ONCE : bounds[1] * USERS_AT_ONCE]
    with (
        replace_folder(output, "part-00000.parquet") if accelerator.is_main_process else nullcontext() as new
    ):
        # The main process made the folder and tells the others its name.
        (folder,) = broadcast_object_list([str(new)])
        table = _table(request, share)
        table.write_parquet(Path(folder) / f"part-{process:05d}.parquet")
        wait_for_everyone(accelerator)
    log.info("file %d of %d: %s -> %s", process + 1, n_processes, _sizes(table, share), output)


def _sizes(table: pl.DataFrame, users: np.ndarray) -> str:
    """The numbers of rows and users."""
    return f"{counted(len(table), 'row')} for {counted(len(users), 'user')}"


def _users(options: RecommendOptions, dataset: Dataset) -> np.ndarray:
    """Numbers of the users asked for, (B,)."""
    if [options.users is not None, options.users_file is not None, options.all].count(True) != 1:
        raise ValueError("name the users with one of --users A,B, --users-file FILE and --all")
    if options.all:
        return np.arange(dataset.n_users)
    if options.users_file is None:
        return dataset.user_ids.index(str(options.users).split(","), "user")
    ids = read_ids(options.users_file)
    if not ids:
        raise ValueError(f"{options.users_file}: the file names no user")
    return dataset.user_ids.index(ids, "user")


def recommendation_table(lists: "Ranking", dataset: Dataset) -> pl.DataFrame:
    """Rows user_id, item_id, rank (from 1), score, title if there is one; ranks without item are left out."""
    rows, ranks = np.nonzero(lists.items >= 0)
    items = lists.items[rows, ranks]
    columns = {
        "user_id": dataset.user_ids.names(lists.users[rows]),
        "item_id": dataset.item_ids.names(items),
        "rank": ranks + 1,
        "score": lists.scores[rows, ranks],
    }
    if "title" in dataset.items.columns:
        columns["title"] = dataset.items["title"].gather(items)
    return pl.DataFrame(columns)


if __name__ == "__main__":
    run(main)
