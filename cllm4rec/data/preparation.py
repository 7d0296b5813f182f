"""From tables to a dataset: the rules that drop events, then the split. Every rule says what it dropped."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import ORDER, Rules, first_of_repeats, k_core, latest_of_repeats
from cllm4rec.data.heldout import add_held_out_rows
from cllm4rec.data.randomness import hash_ids, mix
from cllm4rec.data.readers import SplitTable, Table, event_table, item_table, parts_table, user_table
from cllm4rec.data.splits import FILE_RULE, HELD_OUT_RULE, IN_TIME, RULES, assign_parts, read_parts


def build_dataset(
    events: Any,
    items: Any = None,
    users: Any = None,
    *,
    min_rating: float | None = None,
    min_core: int = 0,
    split: str = "random",
    split_table: Any = None,
    split_column: str | None = None,
    seed: int = 0,
    shuffle_ties: int | None = None,
) -> Dataset:
    """Filter, number and split.

    Args:
        events, items, users: as `Dataset.from_frame` takes them, or what `readers.event_table` and its like give.
        min_rating: keep events rated at least this; needs a rating column.
        min_core: keep users and items with at least this many events, to a fixed point; 0 keeps all.
        split: a key of `splits.RULES`, or the name of the file that `split_table` came from.
        split_table: parts of the events or held-out rows, instead of a rule: a frame, or what `readers.parts_table` gives.
        split_column: its column that holds the parts; `seed_{seed}` if not given.
        seed: of the random split.
        shuffle_ties: seed of a random order among a user's events of one time; the order of the data if not given.

    Raises:
        ValueError: the data cannot do what is asked, or nothing is left.
    """
    table = event_table(events)
    item_rows = None if items is None else item_table(items)
    user_rows = None if users is None else user_table(users)
    parts = None if split_table is None else parts_table(split_table)
    _check(table.frame, min_rating, min_core, split, parts)
    rules = Rules(table.frame)
    if shuffle_ties is not None:
        rules.events = shuffled_ties(rules.events, shuffle_ties)
    if min_rating is not None:
        rules.apply(_rating_rule(min_rating), lambda frame: frame.filter(pl.col("rating") >= min_rating))
    stays, keep = _repeats("file" if parts is not None else split)
    rules.apply(f"{stays} of repeated events of a user and an item", keep)
    if min_core > 1:
        rules.apply(f"{min_core}-core", lambda frame: k_core(frame, min_core))
    described: dict[str, Any] = {"method": Path(split).name, "rule": RULES.get(split, FILE_RULE), "seed": seed}
    if shuffle_ties is not None:
        described["shuffle_ties"] = shuffle_ties
    if parts is not None and parts.held_out:
        described |= {"rule": HELD_OUT_RULE, **add_held_out_rows(rules, parts, described["method"])}
    elif parts is not None:
        column = described["column"] = split_column or f"seed_{seed}"
        rules.apply(f"named in column {column} of {described['method']}", lambda frame: read_parts(frame, parts, column))
        described["rows_without_events"] = parts.frame.select("user_id", "item_id").n_unique() - len(rules.events)
    if rules.events.is_empty():
        raise ValueError("nothing is left to learn from: " + "; ".join(map(str, rules.dropped)))
    dataset = Dataset.from_tables(replace(table, frame=rules.events), item_rows, user_rows)
    if parts is None:
        dataset = replace(dataset, part=assign_parts(dataset, split, seed))
    return replace(
        dataset, about=_about(dataset, {"interactions": table, "items": item_rows, "users": user_rows}, rules, described)
    )


def shuffled_ties(events: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The events with new positions: in order of time, and at random among a user's events of one time.

    An event's place among its ties depends on (seed, user id, item id) alone. An event without a time is tied with the one
    before it by the old positions, or with the earliest where there is none.

    Raises:
        ValueError: there are no times.
    """
    if "timestamp" not in events.columns or not events["timestamp"].is_not_null().any():
        raise ValueError("--shuffle-ties needs a timestamp column: without times nothing says which events are tied")
    ordered = events.sort([name for name in ORDER if name in events.columns], nulls_last=False, maintain_order=True)
    time = pl.col("timestamp").forward_fill().backward_fill().over("user_id")
    draw = mix(seed, hash_ids(ordered["user_id"]), hash_ids(ordered["item_id"]))
    ordered = ordered.with_columns(time.alias("_time"), pl.Series("_draw", draw))
    ordered = ordered.sort("_time", "_draw", nulls_last=False, maintain_order=True).drop("_time", "_draw")
    return ordered.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64))


def _repeats(split: str) -> tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]:
    """Which of repeated events stays, and the function that keeps it."""
    if split not in IN_TIME:
        return "latest", latest_of_repeats
    return "first", lambda frame: first_of_repeats(frame, ("timestamp", "position") if split == "time" else ORDER)


def _about(dataset: Dataset, tables: dict[str, Table | None], rules: Rules, split: dict[str, Any]) -> dict[str, Any]:
    """The account of what was read, dropped and left."""
    used = {"items": dataset.items["item_id"], "users": dataset.users["user_id"]}
    given = {name: table for name, table in tables.items() if table is not None}
    return {
        "columns": {name: table.taken for name, table in given.items()},
        "rules": rules.account(),
        "tables": {name: _rows_account(given[name], ids) for name, ids in used.items() if name in given},
        "texts": {name: sum(text != "" for text in texts) for name, texts in dataset.item_texts.items()},
        "n_items_without_text": sum(not any(texts) for texts in zip(*dataset.item_texts.values(), strict=True)),
        "n_users_below_3_events": int((np.diff(dataset.interactions.indptr) < 3).sum()),
        "split": split,
    }


def _check(events: pl.DataFrame, min_rating: float | None, min_core: int, split: str, parts: SplitTable | None) -> None:
    """Raise ValueError if the data cannot do what is asked."""
    if parts is None and split not in RULES:
        raise ValueError(f"split {split!r} is unknown: take one of {', '.join(RULES)} or a file")
    if parts is None and split in IN_TIME and not {"timestamp", "position"} & set(events.columns):
        raise ValueError(f"--split {split} needs an order in time: the interactions have no timestamp (or position)")
    if min_core < 0 or (min_rating is not None and math.isnan(min_rating)):
        raise ValueError("min_rating has to be a number and k_core may not be negative")
    if min_rating is not None and "rating" not in events.columns:
        raise ValueError("a rating filter needs a rating column, and the interactions have none")
    if parts is not None and parts.held_out and (min_rating is not None or min_core > 1):
        raise ValueError(
            "held-out rows are exact: leave out the rating filter and the k-core (--min-rating, --k-core, --preset)"
        )


def _rows_account(table: Table, used: pl.Series) -> dict[str, int]:
    """How the rows of the table of items (or users) meet the ids that have events."""
    ids = table.frame[used.name].cast(pl.String)
    distinct = ids.unique()
    met = int(distinct.is_in(used.cast(pl.String).implode()).sum())
    return {
        "repeated_rows": len(ids) - len(distinct),
        "rows_without_events": len(distinct) - met,
        "without_a_row": len(used) - met,
    }


def _rating_rule(min_rating: float) -> str:
    below = math.nextafter(min_rating, -math.inf)
    return f"rating > {below:g}" if below == int(below) else f"rating >= {min_rating:g}"
