"""From tables to a dataset: the rules that drop events, then the split. Every rule says what it dropped."""

import math
from dataclasses import replace
from pathlib import Path

import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import Rules, k_core, latest_of_repeats
from cllm4rec.data.splits import RULES, assign_parts, read_parts


def build_dataset(
    events: pl.DataFrame,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    *,
    min_rating: float | None = None,
    min_core: int = 0,
    split: str = "random",
    split_table: pl.DataFrame | None = None,
    split_column: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Filter, number and split.

    Args:
        events, items, users: as `Dataset.from_frame` takes them.
        min_rating: keep events rated at least this; needs a rating column.
        min_core: keep users and items with at least this many events, to a fixed point; 0 keeps all.
        split: a key of `splits.RULES`, or the name of the file that `split_table` came from.
        split_table: parts of the events, instead of a rule.
        split_column: its column that holds the parts; `seed_{seed}` if not given.
        seed: of the random split.

    Raises:
        ValueError: the data cannot do what is asked, or nothing is left.
    """
    if split_table is None and split not in RULES:
        raise ValueError(f"split {split!r} is unknown: take one of {', '.join(RULES)} or a file")
    if split in ("leave-last-out", "time") and not {"timestamp", "position"} & set(events.columns):
        raise ValueError(f"--split {split} needs an order in time: the interactions have no timestamp (or position)")
    if min_core < 0 or (min_rating is not None and math.isnan(min_rating)):
        raise ValueError("min_rating has to be a number and k_core may not be negative")
    rules = Rules(events)
    if min_rating is not None:
        if "rating" not in events.columns:
            raise ValueError("a rating filter needs a rating column, and the interactions have none")
        rules.apply(_rating_rule(min_rating), lambda frame: frame.filter(pl.col("rating") >= min_rating))
    rules.apply("latest of repeated events of a user and an item", latest_of_repeats)
    if min_core > 1:
        rules.apply(f"{min_core}-core", lambda frame: k_core(frame, min_core))
    column = split_column or f"seed_{seed}"
    if split_table is not None:
        rules.apply(f"named in column {column} of {Path(split).name}", lambda f: read_parts(f, split_table, column))
    if rules.events.is_empty():
        raise ValueError("nothing is left to learn from: " + "; ".join(map(str, rules.dropped)))
    dataset = Dataset.from_frame(rules.events, items, users)
    if split_table is None:
        dataset = replace(dataset, part=assign_parts(dataset, split, seed))
    described = {"method": Path(split).name, "column": column} if split_table is not None else {"method": split}
    about = {
        "rules": rules.account(),
        "texts": {name: sum(text != "" for text in texts) for name, texts in dataset.item_texts.items()},
        "split": described | {"seed": seed, "rule": RULES.get(split, "parts as the file gives them")},
    }
    return replace(dataset, about=about)


def _rating_rule(min_rating: float) -> str:
    below = math.nextafter(min_rating, -math.inf)
    return f"rating > {below:g}" if below == int(below) else f"rating >= {min_rating:g}"
