"""From tables of events, items and users to a dataset folder: python -m cllm4rec.prepare --help"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cllm4rec.commands.entry import run, say
from cllm4rec.commands.flags import flag_value, parse
from cllm4rec.data.build import build_dataset
from cllm4rec.data.column_names import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS
from cllm4rec.data.dataset import PARTS, Dataset
from cllm4rec.data.description import DatasetDescription
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
from cllm4rec.messages import counted, join_names
from cllm4rec.settings import check_settings

PRESETS = {"paper": {"min_rating": math.nextafter(3.0, math.inf), "k_core": 5}}  # rating > 3, then 5-core


@dataclass
class PrepareOptions:
    """Flags of prepare."""

    interactions: str = field(
        metadata={"help": "table of events: user_id, item_id; rating, timestamp, review_text if any"}
    )
    output: str = field(metadata={"help": "folder of the dataset to write"})
    items: str | None = field(
        default=None, metadata={"help": "table of items: item_id; title, description, categories"}
    )
    users: str | None = field(default=None, metadata={"help": "table of users: user_id; biography"})
    preset: str | None = field(
        default=None, metadata={"help": "paper: rating > 3 and 5-core", "choices": list(PRESETS)}
    )
    min_rating: float | None = field(
        default=None, metadata={"help": "keep events rated at least this; all if not given"}
    )
    k_core: int = field(
        default=0,
        metadata={"ge": 0, "help": "keep users and items with at least this many events; 0 keeps all"},
    )
    split: str = field(
        default="random", metadata={"help": f"{', '.join(RULES)}, or a file of parts or of held-out rows"}
    )
    split_column: str | None = field(
        default=None, metadata={"help": "the file's column of parts; seed_SEED if not given"}
    )
    seed: int = field(default=0, metadata={"ge": 0, "help": "seed of the random split"})
    shuffle_ties: int | None = field(
        default=None,
        metadata={
            "ge": 0,
            "help": "seed of a random order among a user's events of one time; the order of the data if not given",
        },
    )
    drop_incomplete: bool = field(
        default=False,
        metadata={
            "help": "drop and count rows of any table that lack a user or item id, instead of refusing them"
        },
    )
    columns: str | None = field(
        default=None,
        metadata={
            "help": "columns of the interactions by other names: user_id=buyer,item_id=sku,timestamp=when"
        },
    )
    item_columns: str | None = field(
        default=None, metadata={"help": "likewise of the items: item_id=sku,title=label"}
    )
    user_columns: str | None = field(default=None, metadata={"help": "likewise of the users: user_id=buyer"})
    separator: str | None = field(
        default=None,
        metadata={
            "help": "character between the cells of text tables; a tab in .tsv, a comma in .csv if not given"
        },
    )
    no_header: bool = field(
        default=False,
        metadata={
            "help": "tables whose columns are given by number (--columns user_id=1,item_id=2) have no header"
        },
    )
    sequences: bool = field(
        default=False,
        metadata={"help": "each line of the interactions is a user and the items in order: 1 1 2 3"},
    )
    escape: str | None = field(
        default=None, metadata={"help": r"character before quotes inside of quoted cells of text tables: '\'"}
    )
    encoding: str | None = field(
        default=None, metadata={"help": "encoding of text that is not UTF-8: latin-1, cp1252, shift_jis, ..."}
    )
    max_unpacked_gib: float | None = field(
        default=None,
        metadata={
            "help": "GiB that a compressed table (.gz, Parquet) may unpack to; 100 times its size, and at least 1, if not given"
        },
    )

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str]) -> None:
    preset = PRESETS.get(flag_value(argv, "--preset") or "", {})
    (options,) = parse("prepare", "Make a dataset folder from tables.", [PrepareOptions], argv, preset)
    with locked(Path(os.path.realpath(options.output))):
        check_folder(Path(options.output), "dataset.json")
        _prepare(options)


def _prepare(options: PrepareOptions) -> None:
    """The command, while no other process writes the folder."""
    if options.split_column is not None and options.split in RULES:
        raise ValueError(
            f"--split-column names a column of a split file, and --split {options.split} is a rule: give --split FILE"
        )
    events, items, users = _read_tables(options)
    parts = None if options.split in RULES else _parts(options)
    dataset = build_dataset(
        events,
        items,
        users,
        min_rating=options.min_rating,
        k_core=options.k_core,
        split=options.split,
        split_table=parts,
        split_column=options.split_column,
        seed=options.seed,
        shuffle_ties=options.shuffle_ties,
    )
    if (Path(options.output) / "dataset.json").is_file():
        say(f"{options.output}: the dataset that was there is replaced")
    dataset.save(options.output)
    for table in (events, items, users):
        if table is not None:
            _say_columns(table, events)
    if parts is not None:
        if unread := parts.unread(options.split_column or f"seed_{options.seed}"):
            say(f"{Path(parts.raw.name).name}: columns not read: {join_names(unread)}")
        _say_incomplete(parts.raw.name, parts.incomplete)
    description = dataset.description
    assert description is not None, "build_dataset describes its dataset"
    _say_description(dataset, description)
    if items is not None and not description.texts:
        say(
            f"{Path(items.name).name}: no column of texts (--item-columns names one that is called otherwise)"
        )
    sizes = [
        counted(n, noun)
        for noun, n in (
            ("user", dataset.n_users),
            ("item", dataset.n_items),
            ("event", len(dataset.interactions)),
        )
    ]
    say(f"{', '.join(sizes)} -> {options.output}")


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
            expected = f"each OUR_NAME once, of {', '.join(columns)}"
            raise ValueError(f"{flag} {pair!r}: write OUR_NAME=COLUMN_OF_THE_FILE,..., {expected}")
        names[name] = source_column
    return names


def _parts(options: PrepareOptions) -> SplitTable:
    split = options.split
    if not Path(split).exists():
        raise ValueError(
            f"--split {split}: there is no such file, and no rule of that name: take one of {', '.join(RULES)}"
        )
    return read_split_table(_file(split, options, {}), drop_incomplete=options.drop_incomplete)


def _file(path: str, options: PrepareOptions, names: Mapping[str, str], sequences: bool = False) -> TableFile:
    """A file with the flags that say how it is read. Without a header are those whose columns are numbers."""
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
    return any(_is_number(column) for column in names.values())


def _is_number(column: str) -> bool:
    """Whether a column is given by its number, or two columns that are joined (2+3)."""
    return column.replace("+", "").isdecimal()


def _check_layout(options: PrepareOptions, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Raise ValueError if the flags contradict one another on what is in the lines of a file."""
    if options.sequences and (options.no_header or options.columns):
        raise ValueError("--sequences reads lines without columns: leave out --columns and --no-header")
    if not options.no_header:
        return
    if not any(map(_numbered, columns.values())):
        raise ValueError(
            "--no-header needs the columns by number, from 1: --columns user_id=1,item_id=2 (or --item-columns)"
        )
    for flag, names in columns.items():
        name = next((column for column in names.values() if not _is_number(column)), None)
        if _numbered(names) and name is not None:
            raise ValueError(
                f"{flag} names a column {name!r} beside numbers: without a header all columns are numbers"
            )


def _say_columns(table: CheckedTable, events: CheckedTable) -> None:
    """What was read from which column, what was not, and which rows were left out."""
    for line in table.report():
        say(f"{Path(table.name).name}: {line}")
    if table is not events:
        _say_incomplete(table.name, table.incomplete)


def _say_incomplete(name: str, incomplete: Mapping[str, int]) -> None:
    if incomplete:
        say(f"{Path(name).name}: dropped {counted(incomplete['events'], 'row')} without an id")


def _say_description(dataset: Dataset, description: DatasetDescription) -> None:
    """What was read, dropped and left."""
    for report in description.rules:
        say(str(report))
    for name, table in description.tables.items():
        repeated, idle = (
            f"{table.repeated_rows:,} (the first is kept)",
            f"{table.rows_without_events:,} (left out)",
        )
        rowless = f"{name} with events and no row: {table.without_a_row:,}"
        say(f"{name}: rows that repeat an id: {repeated}; rows without events: {idle}; {rowless}")
    for warning in description.warnings:
        say(f"warning: {warning}")
    for name, count in description.texts.items():
        say(f"{name}: a text for {count:,} of {dataset.n_items:,} items")
    if description.n_items_without_text:
        say(f"items without any text: {description.n_items_without_text:,}")
    split = description.split
    counts = np.bincount(dataset.part, minlength=len(PARTS))
    parts = [f"{n:,} {name}" for n, name in zip(counts, PARTS, strict=True) if n or name != "history"]
    say(f"split {split.method}: {', '.join(parts)} events")
    say(f"  {split.rule}")
    if split.shuffle_ties is not None:
        say(f"  events of a user at one time stand in random order (seed {split.shuffle_ties})")
    if split.rows_without_events:
        say(f"rows of the split file without an event: {split.rows_without_events:,}")
    n_short = description.n_users_below_3_events
    if split.method in ("random", "leave-last-out") and n_short:
        say(f"users with fewer than 3 events, who stay whole in train: {n_short:,}")


if __name__ == "__main__":
    run(main)
