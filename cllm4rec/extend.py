"""Add items, users and events to a run, or take users out of it: cllm4rec extend --help"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cllm4rec.commands import stage_settings
from cllm4rec.commands.entry import run
from cllm4rec.commands.flags import CommandLine
from cllm4rec.commands.tables import TableOptions, read_tables, refuse_without_table
from cllm4rec.files.folders import check_folder
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
    forget: str | None = setting(
        None, metavar="IDS", help="users to take out, separated by commas: their rows, events and texts"
    )
    dataset_output: str | None = setting(
        None, metavar="FOLDER", help="dataset folder to write (default: OUTPUT-dataset)"
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
        if adds == (options.forget is not None):
            raise ValueError("give `items` or `interactions` to add, or else `forget` to take users out")
        if options.users is not None and options.interactions is None:
            raise ValueError("`users` has the texts of users with new events: give `interactions` too")
        if not adds:
            refuse_without_table(reading, "items")
        tables = read_tables(options.interactions, options.items, options.users, reading)
        folder = RunFolder.open(options.run)
        _check_ended(folder)
        RunFolder.check_new(options.output)
        new_dataset = Path(options.dataset_output or f"{options.output.rstrip('/')}-dataset")
        check_folder(new_dataset, "dataset.json")
        dataset = folder.dataset(options.dataset)
        # Imported once the flags are right: --help and a wrong flag do not wait for torch.
        from cllm4rec.commands.extended_runs import Extending

        extending = Extending(folder, dataset, Path(options.output), new_dataset, options.backbone)
        if options.forget is not None:
            extending.forget([name for name in options.forget.split(",") if name])
        else:
            extending.add(*tables)


def _check_ended(folder: RunFolder) -> None:
    """Raise ValueError unless the stages of a run have ended."""
    for stage in STAGES:
        if folder.under_way(stage) is not None:
            raise ValueError(f"{folder.path}: {stage} has not ended: resume it first")
    folder.stage_folder()


if __name__ == "__main__":
    run(main)
