"""What prepare prints: columns, dropped rows, texts, the split and the sizes of a dataset."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cllm4rec.commands.entry import log, say
from cllm4rec.data.audit import refuse_shared
from cllm4rec.data.column_names import attributes_of
from cllm4rec.data.dataset import PARTS, Dataset
from cllm4rec.data.description import DatasetDescription
from cllm4rec.data.readers.split_tables import SplitTable
from cllm4rec.data.readers.tables import CheckedTable
from cllm4rec.data.review_copies import FEWEST_CHARACTERS, FEWEST_WORDS, copied_reviews
from cllm4rec.messages import counted, join_names

MOST_COPIES = 20  # of held-out reviews that are named


def print_tables(events: CheckedTable, items: CheckedTable | None, users: CheckedTable | None) -> None:
    """Print which columns were read and which were not, and the rows that were dropped."""
    for table in (events, items, users):
        if table is None:
            continue
        for line in table.report():
            say(f"{Path(table.name).name}: {line}")
        # Incomplete events are among the rules of the dataset's description.
        if table is not events:
            _print_incomplete(table.name, table.incomplete)


def print_split_table(table: SplitTable, column: str) -> None:
    """Print which columns of a split file were not read, and its rows that were dropped.

    Args:
        table: the split file.
        column: its column of parts.
    """
    if unread := table.unread(column):
        say(f"{Path(table.raw.name).name}: columns not read: {join_names(unread)}")
    _print_incomplete(table.raw.name, table.incomplete)


def _print_incomplete(name: str, incomplete: Mapping[str, int]) -> None:
    if incomplete:
        say(f"{Path(name).name}: dropped {counted(incomplete['events'], 'row')} without an id")


def _print_item_columns(dataset: Dataset, description: DatasetDescription) -> None:
    """Print how many items have each text and each attribute."""
    for name, count in description.texts.items():
        say(f"{name}: a text for {count:,} of {dataset.n_items:,} items")
    for name in attributes_of(dataset.items.columns):
        n_given = int((dataset.items[name] != "").sum())
        say(f"{name}: kept for conditions, a value for {n_given:,} of {dataset.n_items:,} items")
    if description.n_items_without_text:
        say(f"items without any text: {description.n_items_without_text:,}")


def print_description(dataset: Dataset, items: CheckedTable | None) -> None:
    """Print what was read, dropped and kept.

    Args:
        dataset: the dataset.
        items: the table of items.
    """
    description = dataset.description
    assert description is not None, "prepare always splits"
    for report in description.rules:
        say(str(report))
    kept = {"items"} if not dataset.interactions.item_has_event.all() else set()
    for name, table in description.tables.items():
        repeated = f"rows that repeat an id: {table.repeated_rows:,} (the first is kept)"
        idle = (
            f"rows without events: {table.rows_without_events:,} ({'kept' if name in kept else 'left out'})"
        )
        say(f"{name}: {repeated}; {idle}; {name} with events and no row: {table.without_a_row:,}")
    for warning in description.warnings:
        say(f"warning: {warning}")
    _print_item_columns(dataset, description)
    split = description.split
    counts = np.bincount(dataset.part, minlength=len(PARTS))
    parts = [f"{n:,} {name}" for n, name in zip(counts, PARTS, strict=True) if n or name != "history"]
    say(f"split {split.method}: {', '.join(parts)} events")
    say(textwrap.fill(split.rule, 100, initial_indent="  ", subsequent_indent="  "))
    if split.shuffle_ties is not None:
        say(f"  events of a user with equal timestamps are in random order (seed {split.shuffle_ties})")
    if split.rows_without_events:
        say(f"rows of the split file without an event: {split.rows_without_events:,}")
    n_short = description.n_users_below_3_events
    if split.method in ("random", "leave-last-out") and n_short:
        say(f"users with fewer than 3 events, who stay whole in train: {n_short:,}")
    if items is not None and not description.texts:
        say(f"{Path(items.name).name}: no column of texts (--item-columns gives the names of the columns)")


def warn_of_added_events(dataset: Dataset) -> None:
    """Log a warning if training events were added after a split in time."""
    description = dataset.description
    if description is not None and description.n_added_events and description.split.method != "random":
        log.warning(
            "%s came after the split %s, perhaps later than held-out events: a new split measures better",
            counted(description.n_added_events, "training event"),
            description.split.method,
        )


def print_times(dataset: Dataset) -> None:
    """Print how many events have a time, the first and the last day; nothing without times."""
    times = dataset.interactions.times
    if times is None:
        return
    known = times[times >= 0]  # a missing time is below 0
    line = f"timestamps: {len(known):,} of {counted(len(times), 'event')}"
    if not len(known):
        say(line)
        return
    days = known.astype("datetime64[s]").astype("datetime64[D]")
    say(f"{line}, from {days.min()} to {days.max()}")


def print_audit(dataset: Dataset, is_detailed: bool) -> None:
    """Print whether held-out events or their reviews are in what training reads.

    Args:
        dataset: the dataset.
        is_detailed: whether held-out reviews that training reads are named.

    Raises:
        LeakError: a held-out event is a training event too.
    """
    held_out = dataset.only("validation", "test").interactions
    if not len(held_out):
        return
    refuse_shared(dataset.train.interactions, held_out, dataset, "training has")
    say(f"audit: none of {counted(len(held_out), 'held-out event')} is a training event")
    if held_out.reviews is None:
        return
    found = copied_reviews(dataset)
    long = f"{FEWEST_WORDS} words or {FEWEST_CHARACTERS} characters"
    hint = "" if is_detailed or not found.copies else " (--audit names them)"
    result = f"{len(found.copies):,} of {found.n_looked_for:,}{hint}"
    say(f"audit: held-out reviews of at least {long} that are also in training texts: {result}")
    if not is_detailed:
        return
    for copy in found.copies[:MOST_COPIES]:
        say(f"audit: {copy}")
    if len(found.copies) > MOST_COPIES:
        say(f"audit: and {len(found.copies) - MOST_COPIES:,} more")


def sizes_of(dataset: Dataset) -> str:
    """The numbers of users, items and events."""
    n_events = len(dataset.interactions)
    sizes = {"user": dataset.n_users, "item": dataset.n_items, "event": n_events}
    return ", ".join(counted(n, noun) for noun, n in sizes.items())
