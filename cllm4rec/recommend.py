"""Write top-k lists of a run, with external ids and titles: cllm4rec recommend --help"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from cllm4rec.commands.entry import log, run, say
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.stage_settings import BACKBONE, DATASET, VERIFY
from cllm4rec.commands.tables import EventTableOptions, read_events, read_ids, refuse_without_table
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import IdMap
from cllm4rec.data.readers.tables import CheckedTable
from cllm4rec.evaluation.processes import USERS_AT_ONCE, share
from cllm4rec.files.folders import replace_folder
from cllm4rec.files.writing import check_table_name, write_table
from cllm4rec.list_filters import excluded_items
from cllm4rec.messages import counted, join_names
from cllm4rec.models import load
from cllm4rec.settings import setting
from cllm4rec.training.launched import n_launched
from cllm4rec.training.run_folder import RunFolder


@dataclass
class RecommendOptions:
    """Flags of recommend. One of --users, --users-file, --all and --histories names the users.

    --wish needs none of them.
    """

    run: str = setting(metavar="FOLDER", help="run folder")
    users: str | None = setting(
        None,
        metavar="IDS",
        help="user ids separated by commas; ids that contain a comma need --users-file",
    )
    users_file: str | None = setting(None, metavar="FILE", help="file of user ids, one per line")
    all: bool = setting(False, help="all users of the dataset")
    histories: str | None = setting(
        None,
        metavar="FILE",
        help=(
            "table of events, as prepare reads it: lists for its users, who are never taken for users of the "
            "dataset; needs no dataset"
        ),
    )
    k: int = setting(10, ge=1, help="maximum length of a list")
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
    wish: str | None = setting(
        None,
        metavar="WORDS",
        help=(
            "move the lists towards items whose texts have these words, such as 'a warm strap, not leather'; "
            "alone, without users, one list of such items"
        ),
    )
    allow: str | None = setting(
        None, metavar="FILE", help="recommend only these items: file of item ids, one per line"
    )
    deny: str | None = setting(
        None, metavar="FILE", help="never recommend these items: file of item ids, one per line"
    )
    where: str | None = setting(
        None,
        metavar="CONDITION",
        help=(
            "recommend only items whose columns fulfil a condition, such as 'year >= 1990 and not "
            'categories.contains("Drama")\''
        ),
    )
    repeats: bool = setting(False, help="also recommend items of the user's own events")
    diversity: float = setting(
        0.0,
        ge=0,
        le=1,
        help=(
            "weight of the difference from items higher in the list, against that of the score (maximal "
            "marginal relevance over item vectors); 0: the score alone, 1: the difference alone"
        ),
    )


@dataclass(frozen=True)
class Request:
    """Lists to make.

    Attributes:
        options: the flags.
        folder: the run.
        dataset: input events, and ids; None for histories.
        histories: their events; None without.
        users: ids of the users (n,); None for a wish alone.
        allow, deny: item ids in the files of these names; None without one.
    """

    options: RecommendOptions
    folder: RunFolder
    dataset: Dataset | None
    histories: CheckedTable | None
    users: pl.Series | None
    allow: list[str] | None
    deny: list[str] | None

    @classmethod
    def of(cls, options: RecommendOptions, reading: EventTableOptions) -> "Request":
        """The request of some flags.

        Raises:
            ValueError: the run, its dataset or a file cannot be read, an id is unknown, or no item is left.
        """
        given = [options.users is not None, options.users_file is not None, options.all]
        n_given = [*given, options.histories is not None].count(True)
        if n_given > 1 or (n_given == 0 and options.wish is None):
            raise ValueError(
                "name the users with one of --users A,B, --users-file FILE, --all and --histories FILE, or "
                f"give a --wish alone: {n_given or 'none'} of them given"
            )
        if options.histories is None:
            refuse_without_table(reading, "histories")
        folder = RunFolder.open(options.run)
        files = (None if path is None else read_ids(path) for path in (options.allow, options.deny))
        known = None if options.dataset is None else folder.dataset(options.dataset)
        if options.histories is not None:
            table = read_events(options.histories, reading)
            users = table.frame["user_id"].unique(maintain_order=True)
            return cls(options, folder, known, table, users, *files)
        if n_given == 0:
            return cls(options, folder, known, None, None, *files)
        dataset = folder.dataset(options.dataset)
        request = cls(options, folder, dataset, None, _users(options, dataset), *files)
        request.check_items(dataset.item_ids, dataset.items)
        return request

    def check_items(self, item_ids: IdMap, items: pl.DataFrame) -> None:
        """Check the filters of items against those of the dataset, or of the model.

        Raises:
            ValueError: an id is unknown, or no item is left.
        """
        options = self.options
        for path, ids in ((options.allow, self.allow), (options.deny, self.deny)):
            try:
                item_ids.index(ids or [], "item")
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        excluded_items(item_ids, items, self.allow, self.deny, options.where)

    def table(self, users: pl.Series | None) -> pl.DataFrame:
        """The lists of some of the users (n,); None: that of the wish alone."""
        options, events = self.options, self.histories
        model = load(self.folder, self.dataset, backbone=options.backbone, verify=options.verify)
        if self.histories is not None or users is None:  # else they were checked before
            self.check_items(model.item_ids, model.items)
        if events is not None and users is not None:
            frame = events.frame.filter(pl.col("user_id").is_in(users.implode()))
            events = replace(events, frame=frame)
        return model.recommend(
            users if events is None else None,
            options.k,
            histories=events,
            allow=self.allow,
            deny=self.deny,
            where=options.where,
            wish=options.wish,
            repeats=options.repeats,
            diversity=options.diversity,
        )


def main(argv: Sequence[str]) -> None:
    with CommandLine("recommend", argv) as line:
        description = (
            "Write top-k lists of a run, for users of its dataset or of a table of events. Lists leave out "
            "the items of the user's own events."
        )
        options, reading = line.parse(description, [RecommendOptions, EventTableOptions])
        # Several processes write a folder.
        if options.output and n_launched() == 1:
            check_table_name(options.output)
        request = Request.of(options, reading)
        if n_launched() > 1:
            _write_shares(request)
            return
        table = request.table(request.users)
        if options.output:
            write_table(table, options.output)
            log.info("%s -> %s", _sizes(table, request.users), options.output)
        else:
            say(table.write_csv(separator="\t").rstrip("\n"))
        _warn_of_users_without_list(table, request.users)


def _write_shares(request: Request) -> None:
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
    if request.users is None:
        raise ValueError("a `wish` alone has one list: start one process")
    # This also chooses the GPU of the process.
    accelerator = make_accelerator()
    process, n_processes = accelerator.process_index, accelerator.num_processes
    shared_users = request.users[share(len(request.users), USERS_AT_ONCE, accelerator)]
    with (
        replace_folder(output, "part-00000.parquet") if accelerator.is_main_process else nullcontext() as new
    ):
        # The main process made the folder and tells the others its name.
        (folder,) = broadcast_object_list([str(new)])
        table = request.table(shared_users)
        table.write_parquet(Path(folder) / f"part-{process:05d}.parquet")
        wait_for_everyone(accelerator)
    log.info("file %d of %d: %s -> %s", process + 1, n_processes, _sizes(table, shared_users), output)
    _warn_of_users_without_list(table, shared_users)


def _sizes(table: pl.DataFrame, users: pl.Series | None) -> str:
    """The numbers of rows, and of users with a list."""
    served = "a wish" if users is None else counted(table["user_id"].n_unique(), "user")
    return f"{counted(len(table), 'row')} for {served}"


def _warn_of_users_without_list(table: pl.DataFrame, users: pl.Series | None) -> None:
    """Name users for whom no item is left: they have no row."""
    if users is None:
        return
    without = users.filter(~users.cast(pl.String).is_in(table["user_id"].cast(pl.String).implode()))
    if len(without):
        named = join_names(without.cast(pl.String).to_list())
        have = "has" if len(without) == 1 else "have"
        log.warning("no item is left for %s, who %s no list: %s", counted(len(without), "user"), have, named)


def _users(options: RecommendOptions, dataset: Dataset) -> pl.Series:
    """Ids of the users of the dataset that are asked for, (n,)."""
    if options.all:
        return dataset.user_ids.ids
    ids = str(options.users).split(",") if options.users_file is None else read_ids(options.users_file)
    if not ids:
        raise ValueError(f"{options.users_file}: the file names no user")
    try:
        numbers = dataset.user_ids.index(list(dict.fromkeys(ids)), "user")
    except ValueError as error:
        raise ValueError(f"{error}: give a table of their events with `histories` instead") from error
    return dataset.user_ids.names(numbers)


if __name__ == "__main__":
    run(main)
