"""External ids as numbers: text is hashed once, and whole numbers are compared after that."""

import numpy as np
import polars as pl

from cllm4rec.data.randomness import hash_ids


def with_categories(events: pl.DataFrame) -> pl.DataFrame:
    """Events whose ids of text are categories, which are compared, counted and copied as numbers."""
    text = [name for name in ("user_id", "item_id") if events.schema[name] == pl.String]
    return events.with_columns(pl.col(text).cast(pl.Categorical))


def codes(ids: pl.Series) -> np.ndarray:
    """Small whole numbers from 0, int64, equal where the ids are equal; which number an id gets says nothing."""
    if ids.dtype == pl.String:
        ids = ids.cast(pl.Categorical)
    ranks = ids.to_physical() if ids.dtype == pl.Categorical else ids.rank("dense") - 1
    return ranks.cast(pl.Int64).to_numpy()


def pair_codes(events: pl.DataFrame) -> pl.Series:
    """Whole numbers that are equal where user and item are."""
    users, items = codes(events["user_id"]), codes(events["item_id"])
    return pl.Series(users * (items.max(initial=0) + 1) + items)


def row_numbers(column: pl.Series, ids: pl.Series) -> np.ndarray:
    """The row of each of the column's ids in `ids`, compared as text, int64; all have to be there."""
    code = codes(column)
    event = np.full(code.max(initial=-1) + 1, -1)  # one of each code, -1 where a code has none
    event[code] = np.arange(len(code))
    used = np.flatnonzero(event >= 0)
    rows = np.arange(len(ids), dtype=np.int64)
    names = column.gather(event[used]).cast(pl.String)
    event[used] = names.replace_strict(ids.cast(pl.String), rows, return_dtype=pl.Int64).to_numpy()
    return event[code]


def id_rows(seen: pl.Series, table: pl.DataFrame | None, key: str) -> pl.DataFrame:
    """One row for each id that occurs in `seen`, ordered by the hash of the id, with the table's columns joined on."""
    ids = seen.unique()
    ids = ids.cast(pl.String) if ids.dtype == pl.Categorical else ids
    ids = ids[np.lexsort((ids.cast(pl.String).to_numpy(), hash_ids(ids)))]
    rows = ids.alias(key).to_frame()
    if table is None:
        return rows
    by_text = table.with_columns(pl.col(key).cast(pl.String)).unique(key, keep="first", maintain_order=True)
    joined = rows.with_columns(pl.col(key).cast(pl.String).alias("_text")).join(
        by_text.rename({key: "_text"}), on="_text", how="left", maintain_order="left"
    )
    return joined.drop("_text").with_columns(pl.exclude(key).cast(pl.String).fill_null(""))
