"""Make a dataset folder from tables of events, items and users: cllm4rec prepare --help"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cllm4rec.commands.dataset_report import (
    print_audit,
    print_description,
    print_split_table,
    print_tables,
    print_times,
    sizes_of,
)
from cllm4rec.commands.entry import run, say
from cllm4rec.commands.flags import CommandLine
from cllm4rec.data.column_names import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.split_tables import SplitTable, read_split_table
from cllm4rec.data.readers.tables import (
    CheckedTable,
    read_event_table,
    read_item_table,
    read_user_table,
)
from cllm4rec.data.splits import RULES
from cllm4rec.files.folders import check_folder
from cllm4rec.files.locks import locked
from cllm4rec.settings import check_settings, setting

# paper: ratings above 3, then the 5-core.
PRESETS = {"paper": {"min_rating": math.nextafter(3.0, math.inf), "k_core": 5}}


@dataclass
class PrepareOptions:
    """Flags of prepare."""

    interactions: str = setting(
        metavar="FILE", help="table of events: user_id, item_id; optionally rating, timestamp, review_text"
    )
    output: str = setting(metavar="FOLDER", help="dataset folder to write; an existing dataset is replaced")
    items: str | None = setting(
        None,
        metavar="FILE",
        help="table of items: item_id; optionally title, description, categories, brand, year",
    )
    users: str | None = setting(None, metavar="FILE", help="table of users: user_id; optionally biography")
    preset: str | None = setting(
        None, choices=list(PRESETS), help="paper: ratings above 3 only, and a 5-core"
    )
    min_rating: float | None = setting(None, help="keep events with at least this rating; by default all")
    k_core: int = setting(0, ge=0, help="keep users and items with at least this many events; 0 keeps all")
    split: str = setting(
        "random",
        metavar="RULE",
        help=f"rule of the split: {', '.join(RULES)}; or a file of split parts or of held-out rows",
    )
    split_column: str | None = setting(
        None, metavar="NAME", help="column of the split file that holds the parts; by default seed_SEED"
    )
    seed: int = setting(0, ge=0, help="seed of the random split")
    shuffle_ties: int | None = setting(
        None,
        metavar="SEED",
        ge=0,
        help=(
            "seed of a random order of a user's events with equal timestamps; by default they keep the "
            "order of the table"
        ),
    )
    drop_incomplete: bool = setting(
        False, help="drop and count rows without a user or item id, in any table; by default they are refused"
    )
    audit: bool = setting(
        False, help="name held-out reviews that also are in training texts; by default they are counted"
    )
    columns: str | None = setting(
        None,
        metavar="NAMES",
        help="names of the columns of the interactions: user_id=buyer,item_id=sku,timestamp=when",
    )
    item_columns: str | None = setting(
        None, metavar="NAMES", help="names of the columns of the items: item_id=sku,title=label"
    )
    user_columns: str | None = setting(
        None, metavar="NAMES", help="names of the columns of the users: user_id=buyer"
    )
    separator: str | None = setting(
        None, metavar="CHARACTER", help="separator of text tables; by default a tab in .tsv, a comma in .csv"
    )
    no_header: bool = setting(
        False, help="tables whose columns are given by number (--columns user_id=1,item_id=2) have no header"
    )
    sequences: bool = setting(
        False, help="each line of the interactions is a user followed by the items in order: 1 1 2 3"
    )
    encoding: str | None = setting(
        None,
        metavar="NAME",
        help="encoding of text tables: latin-1, cp1252, shift_jis, ...; by default UTF-8",
    )
    escape: str | None = setting(
        None,
        metavar="CHARACTER",
        advanced=True,
        help=r"escape character of quotes in quoted cells, such as '\'",
    )
    max_unpacked_gib: float | None = setting(
        None,
        metavar="GIB",
        advanced=True,
        help=(
            "size limit of an unpacked table (.gz, Parquet) in GiB; by default 100 times its file size, at "
            "least 1"
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str]) -> None:
    with CommandLine("prepare", argv) as line:
        preset = PRESETS.get(line.peek(PrepareOptions).preset, {})
        (options,) = line.parse("Make a dataset folder from tables.", [PrepareOptions], preset)
        with locked(Path(os.path.realpath(options.output))):
            check_folder(Path(options.output), "dataset.json")
            _prepare(options)


def _prepare(options: PrepareOptions) -> None:
    """The command, while no other process writes into the folder."""
    if options.split_column is not None and options.split in RULES:
        raise ValueError(
            f"--split-column names a column of a split file, but --split {options.split} is a rule: give "
            "--split FILE"
        )
    events, items, users = _read_tables(options)
    parts = None if options.split in RULES else _parts(options)
    if options.preset is not None:
        _check_preset(options.preset, events, parts)
    dataset = Dataset.from_frame(
        events,
        items,
        users,
        split=options.split if parts is None else parts,
        split_column=options.split_column,
        seed=options.seed,
        min_rating=options.min_rating,
        k_core=options.k_core,
        shuffle_ties=options.shuffle_ties,
    )
    if (Path(options.output) / "dataset.json").is_file():
        say(f"{options.output}: replacing the existing dataset")
    dataset.save(options.output)
    print_tables(events, items, users)
    if parts is not None:
        print_split_table(parts, options.split_column or f"seed_{options.seed}")
    print_description(dataset, items)
    print_times(dataset)
    print_audit(dataset, options.audit)
    say(f"{sizes_of(dataset)} -> {options.output}")


def _read_tables(options: PrepareOptions) -> tuple[CheckedTable, CheckedTable | None, CheckedTable | None]:
    """The tables of events, items and users that the flags name."""
    for name, path, given in (
        ("item", options.items, options.item_columns),
        ("user", options.users, options.user_columns),
    ):
        if given and not path:
            raise ValueError(
                f"--{name}-columns names columns of a table that is not given: give --{name}s too"
            )
    event_names = column_names(options.columns, "--columns", EVENT_COLUMNS)
    item_names = column_names(options.item_columns, "--item-columns", ITEM_COLUMNS)
    user_names = column_names(options.user_columns, "--user-columns", USER_COLUMNS)
    _check_layout(
        options, {"--columns": event_names, "--item-columns": item_names, "--user-columns": user_names}
    )
    drop = options.drop_incomplete
    file = _file(options.interactions, options, event_names, sequences=options.sequences)
    events, items, users = read_event_table(file, event_names, drop_incomplete=drop), None, None
    if options.items:
        items = read_item_table(_file(options.items, options, item_names), item_names, drop_incomplete=drop)
    if options.users:
        users = read_user_table(_file(options.users, options, user_names), user_names, drop_incomplete=drop)
    return events, items, users


def column_names(text: str | None, flag: str, columns: Sequence[str]) -> dict[str, str]:
    """Parse `user_id=buyer,item_id=sku`: column of this package -> column of the file."""
    names: dict[str, str] = {}
    for pair in (text or "").split(",") if text is not None else ():
        name, _, source_column = pair.strip().partition("=")
        if not source_column or name not in columns or name in names:
            expected = f"expected NAME=COLUMN,...; NAME is one of {', '.join(columns)}, each once"
            raise ValueError(f"{flag} {pair!r}: {expected}")
        names[name] = source_column
    return names


def _parts(options: PrepareOptions) -> SplitTable:
    """The split file."""
    split = options.split
    if not Path(split).exists():
        raise ValueError(
            f"--split {split}: there is no such file, and no rule of that name: take one of "
            + ", ".join(RULES)
        )
    return read_split_table(_file(split, options, {}), drop_incomplete=options.drop_incomplete)


def _check_preset(preset: str, events: CheckedTable, parts: SplitTable | None) -> None:
    """Raise ValueError if the filters of a preset cannot be applied."""
    if parts is not None and parts.held_out:
        raise ValueError(f"held-out rows are exact: leave out the filters of --preset {preset}")
    if "rating" not in events.frame.columns:
        raise ValueError(f"--preset {preset} needs a rating column, and the interactions have none")


def _file(path: str, options: PrepareOptions, names: Mapping[str, str], sequences: bool = False) -> TableFile:
    """A file with the flags for its format. --no-header holds for files whose columns are numbers."""
    return TableFile(
        path,
        separator="\t" if options.separator == "\\t" else options.separator,
        header=not (options.no_header and _numbered(names)),
        sequences=sequences,
        escape=options.escape,
        encoding=options.encoding,
        max_unpacked_gib=options.max_unpacked_gib,
    )


def _numbered(names: Mapping[str, str]) -> bool:
    """Whether any column is given by its number."""
    return any(_is_number(column) for column in names.values())


def _is_number(column: str) -> bool:
    """Whether a column is given by its number, or two columns that are joined (2+3)."""
    return column.replace("+", "").isdecimal()


def _check_layout(options: PrepareOptions, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Raise ValueError if the flags contradict one another on the layout of a file."""
    if options.sequences and (options.no_header or options.columns):
        raise ValueError("--sequences reads lines without columns: leave out --columns and --no-header")
    if not options.no_header:
        return
    if not any(map(_numbered, columns.values())):
        raise ValueError(
            "--no-header needs the columns by number, from 1: --columns user_id=1,item_id=2 "
            "(or --item-columns)"
        )
    for flag, names in columns.items():
        name = next((column for column in names.values() if not _is_number(column)), None)
        if _numbered(names) and name is not None:
            raise ValueError(
                f"{flag} names a column {name!r} among numbers: without a header all columns are numbers"
            )


if __name__ == "__main__":
    run(main)
