"""Events of a table as sorted arrays of user and item numbers."""

import numpy as np
import polars as pl

from cllm4rec.data.ids import IdMap, repeated, row_numbers
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix
from cllm4rec.data.storage import PARTS


def number_events(events: pl.DataFrame, user_ids: IdMap, item_ids: IdMap) -> tuple[Interactions, np.ndarray]:
    """The events as numbers, and the part of each, uint8 (n_events,).

    A user's events are ordered by position, then timestamp, then a hash of the ids; empty cells come first.

    Args:
        events: `user_id`, `item_id`, and optionally `timestamp`, `position`, `review_text` and `part`.
        user_ids, item_ids: hold every id of the events.

    Raises:
        ValueError: there are no events, a user has an item twice, or a part is unknown.
    """
    if events.is_empty():
        raise ValueError("there are no events: nothing is left to learn from")
    user = row_numbers(events["user_id"], user_ids.ids)
    item = row_numbers(events["item_id"], item_ids.ids)
    _refuse_repeats(events, user * len(item_ids) + item)
    part = _part_numbers(events)
    times = _filled(events["timestamp"]) if "timestamp" in events.columns else None
    position = _filled(events["position"]) if "position" in events.columns else None
    tie = mix(user_ids.hashes[user], item_ids.hashes[item])
    order = _order([key for key in (user, position, times, tie) if key is not None])
    reviews = events["review_text"] if "review_text" in events.columns else None
    interactions = Interactions(
        user[order],
        item[order],
        len(user_ids),
        len(item_ids),
        None if times is None else times[order],
        None if reviews is None else reviews.gather(order).fill_null(""),
    )
    return interactions, part[order]


def _refuse_repeats(events: pl.DataFrame, pairs: np.ndarray) -> None:
    """Raise ValueError if a pair of user and item occurs twice; `pairs` (n,) numbers the pairs."""
    several = repeated(pairs)
    if several.any():
        user, item = events.filter(several).select("user_id", "item_id").row(0)
        raise ValueError(
            f"user {user!r} has item {item!r} more than once: keep one event, "
            "as Dataset.from_frame with a `split` does"
        )


def _part_numbers(events: pl.DataFrame) -> np.ndarray:
    """Part of each event as an index of `PARTS`, uint8 (n,); all train without a column `part`."""
    if "part" not in events.columns:
        return np.zeros(len(events), dtype=np.uint8)
    wrong = events.filter(~pl.col("part").is_in(PARTS).fill_null(False))
    if len(wrong):
        raise ValueError(f"part {wrong['part'][0]!r} is unknown: it may be {', '.join(PARTS)}")
    numbers = {name: number for number, name in enumerate(PARTS)}
    return events["part"].replace_strict(numbers, return_dtype=pl.UInt8).to_numpy()


def _order(keys: list[np.ndarray]) -> np.ndarray:
    """Row numbers (n,) sorted by the first key (n,), then the second, ...; equal rows keep their order."""
    columns = pl.DataFrame({str(index): key for index, key in enumerate(keys)}).with_row_index("row")
    # With the row as the last key the order is unique, at a third of the time of a stable sort.
    by = [*columns.columns[1:], "row"]
    return columns.select(pl.arg_sort_by(by)).to_series().to_numpy()


def _filled(column: pl.Series) -> np.ndarray:
    """Whole numbers, int64 (n,); empty cells become -1, or less where needed to be below all others."""
    numbers = column.drop_nulls().to_numpy()
    lowest = min(-1, int(numbers.min()) - 1) if len(numbers) else -1
    return column.cast(pl.Int64).fill_null(lowest).to_numpy()
