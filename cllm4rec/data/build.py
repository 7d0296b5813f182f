"""From checked tables to numbered events: filters, then the split. Each filter reports what it dropped."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.data.column_names import ITEM_TEXTS
from cllm4rec.data.description import (
    IN_TIME,
    DatasetDescription,
    FilterReport,
    SplitDescription,
    TableReport,
)
from cllm4rec.data.filters import (
    ORDER,
    EventFilters,
    first_of_repeats,
    keep_k_core,
    latest_of_repeats,
    shuffled_ties,
)
from cllm4rec.data.held_out import add_held_out_rows
from cllm4rec.data.ids import IdMap, with_categories
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.numbering import number_events
from cllm4rec.data.randomness import check_seed
from cllm4rec.data.readers.split_tables import SplitTable
from cllm4rec.data.readers.tables import CheckedTable
from cllm4rec.data.splits import FILE_RULE, RULES, assign_parts, check_rule, read_parts
from cllm4rec.data.texts import with_texts
from cllm4rec.data.unmatched import unmatched_ids, unmatched_parts
from cllm4rec.messages import join_names

INCOMPLETE = "events without a user or item id"


@dataclass(frozen=True)
class BuildSettings:
    """How the events are filtered and split: the arguments of `Dataset.from_frame`.

    Raises:
        ValueError: a value is wrong, or has no effect.
    """

    split: str | SplitTable | None
    split_column: str | None
    seed: int
    min_rating: float | None
    k_core: int
    shuffle_ties: int | None
    keep_all_items: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.shuffle_ties is not None:
            check_seed(self.shuffle_ties, "shuffle_ties")
        if isinstance(self.split, str):
            check_rule(self.split)
        if self.split is None and self.seed:
            raise ValueError("`seed` is that of a split, and there is none: give `split`, such as 'random'")
        if self.split_column is not None and not isinstance(self.split, SplitTable):
            raise ValueError("`split_column` names a column of a split table: give the table as `split`")
        if self.k_core < 0 or (self.min_rating is not None and not math.isfinite(self.min_rating)):
            raise ValueError("`min_rating` has to be a finite number and `k_core` may not be negative")
        has_filters = self.min_rating is not None or self.k_core > 1
        if isinstance(self.split, SplitTable) and self.split.held_out and has_filters:
            raise ValueError(
                "held-out rows are exact: leave out the rating filter and the k-core (`min_rating`, `k_core`)"
            )


@dataclass(frozen=True)
class NumberedTables:
    """The content of a dataset.

    Attributes:
        interactions, users, items, part, description: as in `Dataset`.
        user_ids, item_ids: external ids in the order of their numbers.
    """

    interactions: Interactions
    users: pl.DataFrame
    items: pl.DataFrame
    part: np.ndarray
    description: DatasetDescription | None
    user_ids: IdMap
    item_ids: IdMap


def number_tables(
    events: CheckedTable, items: CheckedTable | None, users: CheckedTable | None, settings: BuildSettings
) -> NumberedTables:
    """Filter the events, number users and items, and split.

    Raises:
        ValueError: the data lack what a setting needs, or no event is left.
    """
    _check_columns(events.frame, settings)
    split, described, warnings = settings.split, None, []
    filters = _filters(events, settings)
    if split is not None:
        _drop_repeats(filters, split)
        described = _split_description(settings)
        if isinstance(split, SplitTable):
            warnings = unmatched_parts(filters.events, split, described.method)
            described = _apply_split_table(filters, split, settings, described)
    _apply_filters(filters, settings)
    if filters.reports and filters.events.is_empty():
        reasons = [*map(str, filters.reports), *warnings]
        raise ValueError("nothing is left to learn from: " + "; ".join(reasons))
    frame = with_categories(filters.events)
    user_ids, item_ids = IdMap.ordered_by_hash(frame["user_id"]), _item_ids(frame["item_id"], items, settings)
    interactions, part = number_events(frame, user_ids, item_ids)
    if isinstance(split, str):
        part = assign_parts(interactions, user_ids.hashes, item_ids.hashes, split, settings.seed)
    user_table = with_texts(user_ids.ids, None if users is None else users.frame)
    item_table = with_texts(item_ids.ids, None if items is None else items.frame)
    numbered = NumberedTables(interactions, user_table, item_table, part, None, user_ids, item_ids)
    if described is None:
        return numbered
    tables = {"interactions": events, "items": items, "users": users}
    return replace(
        numbered, description=_description(numbered, tables, filters, described, warnings, settings)
    )


def _item_ids(column: pl.Series, items: CheckedTable | None, settings: BuildSettings) -> IdMap:
    """Ids of the items with an event; those of the table of items too, if they are to be kept."""
    if not settings.keep_all_items:
        return IdMap.ordered_by_hash(column)
    if items is None:
        raise ValueError("`keep_all_items` keeps the rows of a table of items: give `items`")
    ids = column.cast(pl.String).unique() if column.dtype == pl.Categorical else column.unique()
    further = items.frame["item_id"].unique()
    if ids.dtype != further.dtype:
        ids, further = ids.cast(pl.String), further.cast(pl.String)
    return IdMap.ordered_by_hash(pl.concat([ids, further]).alias(column.name))


def _check_columns(events: pl.DataFrame, settings: BuildSettings) -> None:
    """Raise ValueError if the events lack a column that a setting needs."""
    if settings.split in IN_TIME and not {"timestamp", "position"} & set(events.columns):
        raise ValueError(
            f"`split` {settings.split} needs an order in time: the interactions have no timestamp "
            "(or position)"
        )
    if settings.min_rating is not None and "rating" not in events.columns:
        raise ValueError("`min_rating` needs a rating column, and the interactions have none")


def _filters(table: CheckedTable, settings: BuildSettings) -> EventFilters:
    """The events before the filters of complete rows, with shuffled ties if asked for."""
    frame = table.frame if settings.split is None else table.frame.drop("part", strict=False)
    filters = EventFilters(frame)
    if table.incomplete:
        filters.reports.append(FilterReport(INCOMPLETE, **table.incomplete))
    if settings.shuffle_ties is not None:
        filters.events = shuffled_ties(filters.events, settings.shuffle_ties)
    return filters


def _drop_repeats(filters: EventFilters, split: str | SplitTable) -> None:
    """Keep one event of each pair of user and item."""
    # In a split in time the first stays: keeping the latest would take events out of the past.
    if split in IN_TIME:
        order = ("timestamp", "position") if split == "time" else ORDER
        filters.apply(
            "first of repeated events of a user and an item", lambda frame: first_of_repeats(frame, order)
        )
    else:
        filters.apply("latest of repeated events of a user and an item", latest_of_repeats)


def _split_description(settings: BuildSettings) -> SplitDescription:
    """The split, without the counts of a split table's rows."""
    split = settings.split
    if isinstance(split, SplitTable):
        method, rule = Path(split.raw.name).name, FILE_RULE
    else:
        method, rule = str(split), RULES[str(split)]
    return SplitDescription(method, rule, settings.seed, shuffle_ties=settings.shuffle_ties)


def _apply_split_table(
    filters: EventFilters, table: SplitTable, settings: BuildSettings, described: SplitDescription
) -> SplitDescription:
    """Give the events the parts of a split table; returns the description with the counts of its rows."""
    if table.held_out:
        return add_held_out_rows(filters, table, described)
    column = settings.split_column or f"seed_{settings.seed}"
    rule = f"named in column {column} of {described.method}"
    filters.apply(rule, lambda frame: read_parts(frame, table, column))
    n_pairs = table.frame.select("user_id", "item_id").n_unique()
    return replace(described, column=column, rows_without_events=n_pairs - len(filters.events))


def _apply_filters(filters: EventFilters, settings: BuildSettings) -> None:
    """Filter by rating, then to the k-core. Nothing may be dropped after the k-core, so these come last."""
    min_rating, k_core = settings.min_rating, settings.k_core
    if min_rating is not None:
        filters.apply(_rating_rule(min_rating), lambda frame: frame.filter(pl.col("rating") >= min_rating))
    if k_core > 1:
        filters.apply(f"{k_core}-core", lambda frame: keep_k_core(frame, k_core))


def _rating_rule(min_rating: float) -> str:
    """Name of the rating filter: `rating > 3`, or `rating >= 3.5` where no whole number is just below."""
    below = math.nextafter(min_rating, -math.inf)
    return f"rating > {below:g}" if below == int(below) else f"rating >= {min_rating:g}"


def _description(
    numbered: NumberedTables,
    tables: dict[str, CheckedTable | None],
    filters: EventFilters,
    split: SplitDescription,
    warnings: list[str],
    settings: BuildSettings,
) -> DatasetDescription:
    """What was read, dropped and left."""
    read = {name: table for name, table in tables.items() if table is not None}
    has_event = pl.Series(numbered.interactions.item_has_event)
    ids = {"items": numbered.item_ids.ids.filter(has_event), "users": numbered.user_ids.ids}
    ids = {name: column for name, column in ids.items() if name in read}
    texts = {name: numbered.items[name] for name in ITEM_TEXTS if name in numbered.items.columns}
    unmatched = [
        line
        for name, column in ids.items()
        for line in unmatched_ids(
            column, read[name].frame[column.name], column.name[:4], Path(read[name].name).name
        )
    ]
    return DatasetDescription(
        columns={name: table.mapping for name, table in read.items()},
        columns_not_read={name: join_names(table.unread) for name, table in read.items() if table.unread},
        rules=tuple(filters.reports),
        tables={name: _table_report(read[name], column) for name, column in ids.items()},
        texts={name: int((column != "").sum()) for name, column in texts.items()},
        n_items_without_text=sum(not any(row) for row in zip(*texts.values(), strict=True)),
        n_users_below_3_events=int((np.diff(numbered.interactions.indptr) < 3).sum()),
        split=split,
        warnings=(*warnings, *unmatched),
        min_rating=settings.min_rating,
    )


def _table_report(table: CheckedTable, ids: pl.Series) -> TableReport:
    """How the rows of the items (or users) table match the ids with events."""
    table_ids = table.frame[ids.name].cast(pl.String)
    distinct = table_ids.unique()
    n_matched = int(distinct.is_in(ids.cast(pl.String).implode()).sum())
    return TableReport(
        repeated_rows=len(table_ids) - len(distinct),
        rows_without_events=len(distinct) - n_matched,
        without_a_row=len(ids) - n_matched,
    )
