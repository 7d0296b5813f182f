"""From tables of events, items and users to a dataset folder: python -m cllm4rec.prepare --help"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cllm4rec.cli import flag_value, parse, run, say
from cllm4rec.data.filters import Dropped
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.readers import read_events, read_items, read_split, read_users
from cllm4rec.data.splits import RULES

PRESETS = {"paper": {"min_rating": math.nextafter(3.0, math.inf), "k_core": 5}}  # rating > 3, then 5-core


@dataclass
class PrepareOptions:
    """Flags of prepare."""

    interactions: str = field(metadata={"help": "table of events: user_id, item_id; rating, timestamp, review_text if any"})
    output: str = field(metadata={"help": "folder of the dataset to write"})
    items: str | None = field(default=None, metadata={"help": "table of items: item_id; title, description, categories"})
    users: str | None = field(default=None, metadata={"help": "table of users: user_id; biography"})
    preset: str | None = field(default=None, metadata={"help": "paper: rating > 3 and 5-core", "choices": list(PRESETS)})
    min_rating: float | None = field(default=None, metadata={"help": "keep events rated at least this; all if not given"})
    k_core: int = field(default=0, metadata={"help": "keep users and items with at least this many events; 0 keeps all"})
    split: str = field(default="random", metadata={"help": f"{', '.join(RULES)}, or a file with user_id, item_id and parts"})
    split_column: str | None = field(default=None, metadata={"help": "the file's column of parts; seed_SEED if not given"})
    seed: int = field(default=0, metadata={"help": "seed of the random split"})


def main(argv: Sequence[str]) -> None:
    preset = PRESETS.get(flag_value(argv, "--preset") or "", {})
    (options,) = parse("prepare", "Make a dataset folder from tables.", [PrepareOptions], argv, preset)
    dataset = build_dataset(
        read_events(options.interactions),
        read_items(options.items) if options.items else None,
        read_users(options.users) if options.users else None,
        min_rating=options.min_rating,
        min_core=options.k_core,
        split=options.split,
        split_table=None if options.split in RULES else read_split(options.split),
        split_column=options.split_column,
        seed=options.seed,
    )
    dataset.save(options.output)
    for rule in dataset.about["rules"]:
        say(str(Dropped(**rule)))
    for name, count in dataset.about["texts"].items():
        say(f"{name}: a text for {count:,} of {dataset.n_items:,} items")
    parts = (len(part.interactions) for part in (dataset.train, dataset.validation, dataset.test))
    say("split {}: {:,} train, {:,} validation, {:,} test events".format(dataset.about["split"]["method"], *parts))
    say(f"{dataset.n_users:,} users, {dataset.n_items:,} items, {len(dataset.interactions):,} events -> {options.output}")


if __name__ == "__main__":
    run(main)
