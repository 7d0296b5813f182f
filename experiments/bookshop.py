"""The small synthetic bookshop of the README, as two tables.

    python -m experiments.bookshop --output datasets/bookshop

Data: 200 readers, 100 books and their reviews, generated from seed 0 (`cllm4rec.data.synthetic`).

Prints nothing; OUTPUT/events.csv and OUTPUT/items.csv hold the tables.
"""

from pathlib import Path

from cllm4rec.data.synthetic import taste_world
from experiments.commands import argument_parser, ends_in_one_line


def write_tables(folder: Path) -> None:
    """Write the events and the items of the bookshop."""
    world = taste_world(seed=0, n_users=200, n_items=100, n_events=12)
    folder.mkdir(parents=True, exist_ok=True)
    world.events.write_csv(folder / "events.csv")
    world.items.sort("item_id").write_csv(folder / "items.csv")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    with ends_in_one_line():
        write_tables(parser.parse_args().output)
