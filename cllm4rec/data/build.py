"""From tables to a dataset: the rules that drop events, then the split. Every rule says what it dropped."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.filters import (
    ORDER,
    Dropped,
    EventFilters,
    first_of_repeats,
    keep_k_core,
    latest_of_repeats,
)
from cllm4rec.data.held_out import add_held_out_rows
from cllm4rec.data.ids import hash_ids
from cllm4rec.data.randomness import check_seed, mix
from cllm4rec.data.readers.split_tables import SplitTable, parts_table
from cllm4rec.data.readers.tables import CheckedTable, read_event_table, read_item_table, read_user_table
from cllm4rec.data.splits import FILE_RULE, HELD_OUT_RULE, IN_TIME, RULES, assign_parts, read_parts
from cllm4rec.data.unmatched import unmet_ids
from cllm4rec.messages import join_names

INCOMPLETE = "events without a user or item id"


def build_dataset(
    events: Any,
    items: Any = None,
    users: Any = None,
    *,
    min_rating: float | None = None,
    k_core: int = 0,
    split: str = "random",
    split_table: Any = None,
    split_column: str | None = None,
    seed: int = 0,
    shuffle_ties: int | None = None,
    drop_incomplete: bool = False,
) -> Dataset:
    """Filter, number and split.

    Args:
        events, items, users: as `Dataset.from_frame` takes them, or what `readers.read_event_table` and its like give.
        min_rating: keep events rated at least this; needs a rating column. Of repeated events, the rating of the one
            that stays counts.
        k_core: keep users and items with at least this many events, to a fixed point; 0 keeps all.
        split: a key of `splits.RULES`, or the name of the file that `split_table` came from.
        split_table: parts of the events or held-out rows, instead of a rule: a frame, or what `readers.parts_table` gives.
        split_column: its column that holds the parts; `seed_{seed}` if not given.
        seed: of the random split.
        shuffle_ties: seed of a random order among a user's events of one time; the order of the data if not given.
        drop_incomplete: drop rows of all tables without a user or item id, instead of refusing them.

    The dataset's `about` holds the account: what each rule dropped, `columns_not_read` of each table, and `warnings`
    where the ids of two tables do not meet.

    Raises:
        ValueError: the data cannot do what is asked, or nothing is left.
    """
    check_seed(seed)
    if shuffle_ties is not None:
        check_seed(shuffle_ties, "shuffle_ties")
    table = read_event_table(events, drop_incomplete=drop_incomplete)
    item_rows = None if items is None else read_item_table(items, drop_incomplete=drop_incomplete)
    user_rows = None if users is None else read_user_table(users, drop_incomplete=drop_incomplete)
    parts = None if split_table is None else parts_table(split_table, drop_incomplete=drop_incomplete)
    _check(table.frame, min_rating, k_core, split, parts)
    rules = EventFilters(table.frame)
    if table.incomplete:
        rules.dropped.append(Dropped(INCOMPLETE, **table.incomplete))
    if shuffle_ties is not None:
        rules.events = shuffled_ties(rules.events, shuffle_ties)
    stays, keep = _repeats("file" if parts is not None else split)
    rules.apply(f"{stays} of repeated events of a user and an item", keep)
    described: dict[str, Any] = {
        "method": Path(split).name,
        "rule": RULES.get(split, FILE_RULE),
        "seed": seed,
    }
    described |= {} if shuffle_ties is None else {"shuffle_ties": shuffle_ties}
    warnings = [] if parts is None else _apply_file(rules, parts, split_column or f"seed_{seed}", described)
    _apply_filters(rules, min_rating, k_core)
    if rules.events.is_empty():
        raise ValueError("nothing is left to learn from: " + "; ".join([*map(str, rules.dropped), *warnings]))
    dataset = Dataset.from_tables(replace(table, frame=rules.events), item_rows, user_rows)
    if parts is None:
        dataset = replace(dataset, part=assign_parts(dataset, split, seed))
    tables = {"interactions": table, "items": item_rows, "users": user_rows}
    return replace(dataset, about=_about(dataset, tables, rules, described, warnings))


def _apply_file(rules: EventFilters, parts: SplitTable, column: str, described: dict[str, Any]) -> list[str]:
    """Give the events the parts of a file, and note in `described` what it held; warnings where its ids meet no event."""
    name = described["method"]
    rows = (
        parts.frame
        if not parts.held_out
        else parts.frame.select(
            *(["user_id"] if "user_id" in parts.frame.columns else []),
            item_id=pl.concat_list("history_items", pl.col("target_item").cast(pl.String)),
        ).explode("item_id")
    )
    warnings = [
        line
        for kind in ("user", "item")
        if f"{kind}_id" in rows.columns
        for line in unmet_ids(rules.events[f"{kind}_id"], rows[f"{kind}_id"], kind, name)
    ]
    if parts.held_out:
        described |= {"rule": HELD_OUT_RULE, **add_held_out_rows(rules, parts, name)}
        return warnings
    described["column"] = column
    rules.apply(f"named in column {column} of {name}", lambda frame: read_parts(frame, parts, column))
    described["rows_without_events"] = parts.frame.select("user_id", "item_id").n_unique() - len(rules.events)
    return warnings


def _apply_filters(rules: EventFilters, min_rating: float | None, k_core: int) -> None:
    """Filters come after repeats are settled and events are named by a file, so that nothing is dropped after the k-core."""
    if min_rating is not None:
        rules.apply(_rating_rule(min_rating), lambda frame: frame.filter(pl.col("rating") >= min_rating))
    if k_core > 1:
        rules.apply(f"{k_core}-core", lambda frame: keep_k_core(frame, k_core))


def shuffled_ties(events: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The events with new positions: in order of time, and at random among a user's events of one time.

    An event's place among its ties depends on (seed, user id, item id) alone. An event without a time is tied with the one
    before it by the old positions, or with the earliest where there is none.

    Raises:
        ValueError: there are no times.
    """
    if "timestamp" not in events.columns or not events["timestamp"].is_not_null().any():
        raise ValueError(
            "--shuffle-ties needs a timestamp column: without times nothing says which events are tied"
        )
    ordered = events.sort(
        [name for name in ORDER if name in events.columns], nulls_last=False, maintain_order=True
    )
    time = pl.col("timestamp").forward_fill().backward_fill().over("user_id")
    draw = mix(seed, hash_ids(ordered["user_id"]), hash_ids(ordered["item_id"]))
    ordered = ordered.with_columns(time.alias("_time"), pl.Series("_draw", draw))
    ordered = ordered.sort("_time", "_draw", nulls_last=False, maintain_order=True).drop("_time", "_draw")
    return ordered.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64))


def _repeats(split: str) -> tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]:
    """Which of repeated events stays, and the function that keeps it."""
    if split not in IN_TIME:
        return "latest", latest_of_repeats
    return "first", lambda frame: first_of_repeats(
        frame, ("timestamp", "position") if split == "time" else ORDER
    )


def _about(
    dataset: Dataset,
    tables: dict[str, CheckedTable | None],
    rules: EventFilters,
    split: dict[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    """The account of what was read, dropped and left."""
    used = {"items": dataset.items["item_id"], "users": dataset.users["user_id"]}
    given = {name: table for name, table in tables.items() if table is not None}
    return {
        "columns": {name: table.taken for name, table in given.items()},
        "columns_not_read": {name: join_names(table.unread) for name, table in given.items() if table.unread},
        "rules": rules.account(),
        "tables": {name: _rows_account(given[name], ids) for name, ids in used.items() if name in given},
        "texts": {name: sum(text != "" for text in texts) for name, texts in dataset.item_texts.items()},
        "n_items_without_text": sum(
            not any(texts) for texts in zip(*dataset.item_texts.values(), strict=True)
        ),
        "n_users_below_3_events": int((np.diff(dataset.interactions.indptr) < 3).sum()),
        "split": split,
        "warnings": warnings
        + [
            line
            for name, ids in used.items()
            if name in given
            for line in unmet_ids(ids, given[name].frame[ids.name], ids.name[:4], Path(given[name].name).name)
        ],
    }


def _check(
    events: pl.DataFrame, min_rating: float | None, k_core: int, split: str, parts: SplitTable | None
) -> None:
    """Raise ValueError if the data cannot do what is asked."""
    if parts is None and split not in RULES:
        raise ValueError(f"split {split!r} is unknown: take one of {', '.join(RULES)} or a file")
    if parts is None and split in IN_TIME and not {"timestamp", "position"} & set(events.columns):
        raise ValueError(
            f"--split {split} needs an order in time: the interactions have no timestamp (or position)"
        )
    if k_core < 0 or (min_rating is not None and math.isnan(min_rating)):
        raise ValueError("min_rating has to be a number and k_core may not be negative")
    if min_rating is not None and "rating" not in events.columns:
        raise ValueError("a rating filter needs a rating column, and the interactions have none")
    if parts is not None and parts.held_out and (min_rating is not None or k_core > 1):
        raise ValueError(
            "held-out rows are exact: leave out the rating filter and the k-core (--min-rating, --k-core, --preset)"
        )


def _rows_account(table: CheckedTable, used: pl.Series) -> dict[str, int]:
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
