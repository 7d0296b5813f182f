"""The small synthetic bookshop of the README, as two tables.

    python -m experiments.bookshop --output datasets/bookshop

Data: 200 readers, 100 books and their reviews, generated from seed 0 (`cllm4rec.data.synthetic`).

Prints nothing; OUTPUT/events.csv and OUTPUT/items.csv hold the tables.
"""

import argparse
from pathlib import Path

from cllm4rec.data.synthetic import taste_world


def write_tables(folder: Path) -> None:
    """Write the events and the items of the bookshop."""
    world = taste_world(seed=0, n_users=200, n_items=100, n_events=12)
    folder.mkdir(parents=True, exist_ok=True)
    world.events.write_csv(folder / "events.csv")
    world.items.sort("item_id").write_csv(folder / "items.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    write_tables(parser.parse_args().output)
