"""Write top-k lists of a run, with external ids and titles: cllm4rec recommend --help"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cllm4rec.commands.entry import log, n_launched, run, say
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation.processes import USERS_AT_ONCE, share
from cllm4rec.files.folders import replace_folder
from cllm4rec.files.writing import check_table_name, write_table
from cllm4rec.list_filters import excluded_items
from cllm4rec.messages import counted
from cllm4rec.models import load
from cllm4rec.settings import setting
from cllm4rec.training.run_folder import RunFolder


@dataclass
class RecommendOptions:
    """Flags of recommend. Exactly one of --users, --users-file and --all names the users."""

    run: str = setting(metavar="FOLDER", help="run folder")
    users: str | None = setting(
        None,
        metavar="IDS",
        help="user ids separated by commas; ids that contain a comma need --users-file",
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
    allow: str | None = setting(
        None, metavar="FILE", help="recommend only these items: file of item ids, one per line"
    )
    deny: str | None = setting(
        None, metavar="FILE", help="never recommend these items: file of item ids, one per line"
    )


@dataclass(frozen=True)
class Request:
    """Lists to make.

    Attributes:
        options: the flags.
        folder: the run.
        dataset: input events, and ids.
        allow, deny: item ids in the files of these names; None without one.
    """

    options: RecommendOptions
    folder: RunFolder
    dataset: Dataset
    allow: list[str] | None
    deny: list[str] | None


def main(argv: Sequence[str]) -> None:
    with CommandLine("recommend", argv) as line:
        description = "Write top-k lists of a run, without the items of each user's events."
        (options,) = line.parse(description, [RecommendOptions])
        # Several processes write a folder.
        if options.output and n_launched() == 1:
            check_table_name(options.output)
        folder = RunFolder.open(options.run)
        dataset = folder.dataset(options.dataset)
        users = _users(options, dataset)
        request = Request(options, folder, dataset, *_filters(options, dataset))
        if n_launched() > 1:
            _write_shares(request, users)
            return
        table = _table(request, users)
        if options.output:
            write_table(table, options.output)
            log.info("%s -> %s", _sizes(table, users), options.output)
        else:
            say(table.write_csv(separator="\t").rstrip("\n"))


def _table(request: Request, users: pl.Series) -> pl.DataFrame:
    """The lists of some of the users (n,)."""
    options = request.options
    model = load(request.folder, request.dataset, backbone=options.backbone, verify=options.verify)
    return model.recommend(users, options.k, allow=request.allow, deny=request.deny)


def _write_shares(request: Request, users: pl.Series) -> None:
    """Under a launcher, each process writes the lists of a contiguous share of the users into one folder.

    Shares consist of whole batches, so that the files together equal the table that one process writes.
    """
    from accelerate.utils import broadcast_object_list

    from cllm4rec.training.device import make_accelerator, wait_for_everyone

    output = Path(request.options.output or "")
    if output.suffix != ".parquet":
        raise ValueError(
            "several processes write a file each: name their folder with `output`, ending in .parquet"
        )
    # This also chooses the GPU of the process.
    accelerator = make_accelerator()
    process, n_processes = accelerator.process_index, accelerator.num_processes
    shared_users = users[share(len(users), USERS_AT_ONCE, accelerator)]
    with (
        replace_folder(output, "part-00000.parquet") if accelerator.is_main_process else nullcontext() as new
    ):
        # The main process made the folder and tells the others its name.
        (folder,) = broadcast_object_list([str(new)])
        table = _table(request, shared_users)
        table.write_parquet(Path(folder) / f"part-{process:05d}.parquet")
        wait_for_everyone(accelerator)
    log.info("file %d of %d: %s -> %s", process + 1, n_processes, _sizes(table, shared_users), output)


def _sizes(table: pl.DataFrame, users: pl.Series) -> str:
    """The numbers of rows and users."""
    return f"{counted(len(table), 'row')} for {counted(len(users), 'user')}"


def _users(options: RecommendOptions, dataset: Dataset) -> pl.Series:
    """Ids of the users asked for, (n,)."""
    if [options.users is not None, options.users_file is not None, options.all].count(True) != 1:
        raise ValueError("name the users with one of --users A,B, --users-file FILE and --all")
    if options.all:
        return dataset.user_ids.ids
    ids = str(options.users).split(",") if options.users_file is None else read_ids(options.users_file)
    if not ids:
        raise ValueError(f"{options.users_file}: the file names no user")
    return dataset.user_ids.names(dataset.user_ids.index(list(dict.fromkeys(ids)), "user"))


def _filters(options: RecommendOptions, dataset: Dataset) -> tuple[list[str] | None, list[str] | None]:
    """The item ids of --allow and --deny; None without a file.

    Raises:
        ValueError: a file cannot be read or holds an unknown id; or no item is left.
    """
    allow, deny = (None if path is None else _items(path, dataset) for path in (options.allow, options.deny))
    excluded_items(dataset.item_ids, allow, deny)
    return allow, deny


def _items(path: str, dataset: Dataset) -> list[str]:
    """The item ids in a file."""
    ids = read_ids(path)
    try:
        dataset.item_ids.index(ids, "item")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return ids


def read_ids(path: str) -> list[str]:
    """The ids in a text file, one per line; empty lines are skipped.

    Raises:
        ValueError: there is no such file, or it is not UTF-8.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    return [line for line in lines if line]


if __name__ == "__main__":
    run(main)
