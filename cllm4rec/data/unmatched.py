"""Warnings where the ids of two tables do not match: an example of each side, and how they differ."""

from collections.abc import Callable

import polars as pl

from cllm4rec.data.readers.split_tables import SplitTable
from cllm4rec.messages import printable

DIFFERENCES: dict[
    str, Callable[[pl.Expr], pl.Expr]
] = {  # difference in writing -> normalisation that removes it
    "surrounding spaces": lambda ids: ids.str.strip_chars(),
    "leading zeros": lambda ids: ids.str.replace(r"^(-?)0+(\d)", "${1}${2}"),
    "a fraction .0": lambda ids: ids.str.replace(r"^(-?\d+)\.0+$", "${1}"),
    "upper and lower case": lambda ids: ids.str.to_lowercase(),
    "quotes": lambda ids: ids.str.strip_chars("\"'"),
}


def unmatched_ids(event_ids: pl.Series, table_ids: pl.Series, kind: str, name: str) -> list[str]:
    """A warning where no id of the events has a row in a table.

    Also where under half have one and a difference in writing is the cause.

    Args:
        event_ids: of the events, int64 or text.
        table_ids: of the table.
        kind: "user" or "item".
        name: of the table.

    Returns:
        One line, or none.
    """
    event_ids, table_ids = (ids.unique().cast(pl.String).alias("id") for ids in (event_ids, table_ids))
    has_row = event_ids.is_in(table_ids.implode())
    if not len(event_ids) or not len(table_ids) or 2 * int(has_row.sum()) >= len(event_ids):
        return []
    without_row = event_ids.filter(~has_row).sort().to_frame()
    without_event = table_ids.filter(~table_ids.is_in(event_ids.implode())).sort().to_frame()
    example, difference = _commonest_difference(without_row, without_event)
    if example is None and has_row.any():
        return []
    n, of = len(event_ids), f"{kind}s of the events"
    share = f"{len(without_row):,} of {n:,}" if has_row.any() else f"none of the {n:,}"
    verb = "have no row" if has_row.any() else "has a row"
    event_id, table_id = example or (without_row["id"][0], without_event["id"][0])
    advice = (
        f"they differ in {difference}; write both alike"
        if example
        else "take care that both use the same ids"
    )
    return [
        f"{share} {of} {verb} in {name}: {printable(repr(event_id))} in the events, "
        f"{printable(repr(table_id))} there: {advice}"
    ]


def unmatched_parts(events: pl.DataFrame, table: SplitTable, name: str) -> list[str]:
    """Warnings where ids of a split table do not match those of the events; `name` is the table's."""
    rows = table.frame
    if table.held_out:
        item_ids = pl.concat_list("history_items", pl.col("target_item").cast(pl.String))
        user_ids = ["user_id"] if "user_id" in rows.columns else []
        rows = rows.select(*user_ids, item_id=item_ids).explode("item_id")
    return [
        line
        for kind in ("user", "item")
        if f"{kind}_id" in rows.columns
        for line in unmatched_ids(events[f"{kind}_id"], rows[f"{kind}_id"], kind, name)
    ]


def _commonest_difference(
    without_row: pl.DataFrame, without_event: pl.DataFrame
) -> tuple[tuple[str, str] | None, str]:
    """The difference whose removal matches most ids, with an example.

    Args:
        without_row: column `id`, ids of the events.
        without_event: column `id`, ids of the table.

    Returns:
        An id of each side and the name of the difference; (None, "") where no removal matches any.
    """
    keys = {name: normalise(pl.col("id")) for name, normalise in DIFFERENCES.items()}
    all_removed = pl.col("id")
    for normalise in DIFFERENCES.values():
        all_removed = normalise(all_removed)
    keys["more than one of these: " + ", ".join(DIFFERENCES)] = all_removed
    most, example, difference = 0, None, ""
    for name, key in keys.items():
        event_side, table_side = (
            ids.with_columns(key.alias("key")).unique("key", keep="first", maintain_order=True)
            for ids in (without_row, without_event)
        )
        pairs = event_side.join(table_side, on="key", how="inner", maintain_order="left")
        if len(pairs) > most:
            most, example, difference = len(pairs), (pairs["id"][0], pairs["id_right"][0]), name
    return example, difference
