"""Make a dataset folder from tables of events, items and users: cllm4rec prepare --help"""

import math
import os
from collections.abc import Sequence
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
from cllm4rec.commands.tables import TableOptions, read_tables, text_file
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.split_tables import SplitTable, read_split_table
from cllm4rec.data.readers.tables import CheckedTable
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
        None,
        choices=list(PRESETS),
        help="paper: keep ratings above 3, then users and items with at least 5 events (5-core)",
    )
    min_rating: float | None = setting(None, help="keep events with at least this rating; by default all")
    k_core: int = setting(0, ge=0, help="keep users and items with at least this many events; 0 keeps all")
    split: str = setting(
        "random",
        metavar="RULE",
        help=(
            f"how events are split: {', '.join(RULES)}; or a file with the part of each event, or with "
            "held-out rows"
        ),
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
            "seed of a random order of a user's events with equal timestamps; by default a hash of their ids "
            "orders them"
        ),
    )
    keep_all_items: bool = setting(
        False,
        help=(
            "also keep items without an event, which systems that read texts recommend; by default they are "
            "left out"
        ),
    )
    audit: bool = setting(
        False, help="name held-out reviews that also occur in training texts; by default they are counted"
    )

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str]) -> None:
    with CommandLine("prepare", argv) as line:
        preset = PRESETS.get(line.peek(PrepareOptions).preset, {})
        options, reading = line.parse(
            "Make a dataset folder from tables.", [PrepareOptions, TableOptions], preset
        )
        with locked(Path(os.path.realpath(options.output))):
            check_folder(Path(options.output), "dataset.json")
            _prepare(options, reading)


def _prepare(options: PrepareOptions, reading: TableOptions) -> None:
    """The command, while no other process writes into the folder."""
    if options.split_column is not None and options.split in RULES:
        raise ValueError(
            f"--split-column names a column of a split file, but --split {options.split} is a rule: give "
            "--split FILE"
        )
    events, items, users = read_tables(options.interactions, options.items, options.users, reading)
    assert events is not None
    parts = None if options.split in RULES else _parts(options.split, reading)
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
        keep_all_items=options.keep_all_items,
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


def _parts(split: str, reading: TableOptions) -> SplitTable:
    """The split file."""
    if not Path(split).exists():
        raise ValueError(
            f"--split {split}: there is no such file, and no rule of that name: take one of "
            + ", ".join(RULES)
        )
    return read_split_table(text_file(split, reading, {}), drop_incomplete=reading.drop_incomplete)


def _check_preset(preset: str, events: CheckedTable, parts: SplitTable | None) -> None:
    """Raise ValueError if the filters of a preset cannot be applied."""
    if parts is not None and parts.held_out:
        raise ValueError(f"held-out rows are exact: leave out the filters of --preset {preset}")
    if "rating" not in events.frame.columns:
        raise ValueError(f"--preset {preset} needs a rating column, and the interactions have none")


if __name__ == "__main__":
    run(main)
