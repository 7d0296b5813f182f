"""Texts of users and items: tables of one row per id."""

import numpy as np
import polars as pl


def with_texts(ids: pl.Series, table: pl.DataFrame | None) -> pl.DataFrame:
    """A table of one row per id in the order of `ids`, with text columns.

    Args:
        ids: distinct; the name of the series is that of the id column.
        table: the id column and text columns; of a repeated id the first row counts. None for no texts.
    """
    key, frame = ids.name, ids.to_frame()
    if table is None:
        return frame
    by_text = table.with_columns(pl.col(key).cast(pl.String)).unique(key, keep="first", maintain_order=True)
    joined = frame.with_columns(pl.col(key).cast(pl.String).alias("_text")).join(
        by_text.rename({key: "_text"}), on="_text", how="left", maintain_order="left"
    )
    return joined.drop("_text").with_columns(pl.exclude(key).cast(pl.String).fill_null(""))


def texts_by_column(
    table: pl.DataFrame, names: tuple[str, ...], has_event: np.ndarray
) -> dict[str, list[str]]:
    """The text columns that the table has; "" in rows where `has_event` (n,) is False."""
    columns = [name for name in names if name in table.columns]
    texts = table.select(
        pl.when(pl.Series(has_event)).then(pl.col(name)).otherwise(pl.lit("")).alias(name) for name in columns
    )
    return {name: texts[name].to_list() for name in columns}
