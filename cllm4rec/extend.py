"""Add items, users and events to a run, or take users out of it: cllm4rec extend --help"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from cllm4rec.commands import stage_settings
from cllm4rec.commands.entry import run
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.tables import TableOptions, read_ids, read_tables, refuse_without_table
from cllm4rec.data.column_names import attributes_of
from cllm4rec.settings import setting
from cllm4rec.training.run_folder import STAGES, RunFolder


@dataclass
class ExtendOptions:
    """Flags of extend. --items and --interactions add, --forget takes out."""

    run: str = setting(metavar="FOLDER", help="run folder; it stays as it is")
    output: str = setting(metavar="FOLDER", help="run folder to write; must be new or empty")
    items: str | None = setting(
        None, metavar="FILE", help="table of items: new ones get the vectors of their texts alone"
    )
    interactions: str | None = setting(
        None,
        metavar="FILE",
        help="table of new events of known and of new users; training goes on with them",
    )
    users: str | None = setting(None, metavar="FILE", help="table of users: the texts of new ones")
    item_vectors: str | None = setting(
        None,
        metavar="FILE",
        help="vectors of all items, new ones included (.parquet), for a run trained with such a file",
    )
    forget: str | None = setting(
        None,
        metavar="IDS",
        help=(
            "users to take out, separated by commas: their rows, events and texts; ids that contain a comma "
            "need --forget-file"
        ),
    )
    forget_file: str | None = setting(
        None, metavar="FILE", help="file of the ids of users to take out, one per line"
    )
    dataset_output: str | None = setting(
        None, metavar="FOLDER", help="dataset folder to write, new or empty (default: OUTPUT-dataset)"
    )
    dataset: str | None = setting(None, metavar="FOLDER", help=stage_settings.DATASET)
    backbone: str | None = setting(None, metavar="FOLDER", help=stage_settings.BACKBONE)


def main(argv: Sequence[str]) -> None:
    with CommandLine("extend", argv) as line:
        description = (
            "Write a copy of a run and of its dataset with further items, users and events, or without some "
            "users. Ids that stay keep their meaning."
        )
        options, reading = line.parse(description, [ExtendOptions, TableOptions])
        adds = options.items is not None or options.interactions is not None
        n_lists = [options.forget, options.forget_file].count(None)
        if n_lists == 0 or adds == (n_lists < 2):
            raise ValueError(
                "give either `items` or `interactions` to add, or `forget` or `forget_file` to take out, in "
                "separate calls"
            )
        if options.users is not None and options.interactions is None:
            raise ValueError("`users` has the texts of users with new events: give `interactions` too")
        if not adds:
            refuse_without_table(reading, "items")
        forgotten = _forgotten(options)
        folder = RunFolder.open(options.run)
        _check_ended(folder)
        new_dataset = Path(options.dataset_output or f"{options.output.rstrip('/')}-dataset")
        read = Path(options.dataset or folder.description.dataset.path)
        _check_places(Path(options.output), new_dataset, (Path(options.run), read))
        dataset = folder.dataset(options.dataset)
        attributes = attributes_of(dataset.items.columns) if options.items is not None else []
        tables = read_tables(options.interactions, options.items, options.users, reading, attributes)
        # Imported once the flags are right: --help and a wrong flag do not wait for torch.
        from cllm4rec.commands.extended_runs import Extending

        extending = Extending(
            folder, dataset, read, Path(options.output), new_dataset, options.backbone, options.item_vectors
        )
        if forgotten is not None:
            extending.forget(forgotten)
        else:
            extending.add(*tables)


def _forgotten(options: ExtendOptions) -> list[str] | None:
    """Ids of users to take out; None if none are asked for.

    Raises:
        ValueError: the list is empty.
    """
    if options.forget is not None:
        named = [name for name in options.forget.split(",") if name]
    elif options.forget_file is not None:
        named = read_ids(options.forget_file)
    else:
        return None
    if not named:
        raise ValueError("there is no user to take out: `forget` (or `forget_file`) is empty")
    return list(dict.fromkeys(named))


def _check_places(output: Path, new_dataset: Path, read: Sequence[Path]) -> None:
    """Refuse outputs that are not new or empty, or that are in one another or in what is read.

    Args:
        output, new_dataset: folders to write.
        read: folders that stay.

    Raises:
        ValueError: names the folder.
    """
    RunFolder.check_new(output)
    if new_dataset.exists() and (not new_dataset.is_dir() or any(new_dataset.iterdir())):
        raise ValueError(f"{new_dataset} exists and is not empty: name a new folder by `dataset_output`")
    places = [Path(os.path.realpath(place)) for place in (output, new_dataset, *read)]
    for one, other in permutations(places, 2):
        if one.is_relative_to(other) and not (one in places[2:] and other in places[2:]):
            raise ValueError(
                f"{one} is {other} or in it: name other folders by `output` and `dataset_output`"
            )


def _check_ended(folder: RunFolder) -> None:
    """Raise ValueError unless the stages of a run have ended."""
    for stage in STAGES:
        if folder.under_way(stage) is not None:
            raise ValueError(f"{folder.path}: {stage} has not ended: resume it first")
    folder.stage_folder()


if __name__ == "__main__":
    run(main)
