"""Warnings where the ids of two tables do not meet: an example of each side, and how they differ."""

from collections.abc import Callable

import polars as pl

from cllm4rec.messages import printable

DIFFERENCES: dict[str, Callable[[pl.Expr], pl.Expr]] = {  # how ids may differ -> what makes them equal
    "surrounding spaces": lambda ids: ids.str.strip_chars(),
    "leading zeros": lambda ids: ids.str.replace(r"^(-?)0+(\d)", "${1}${2}"),
    "a fraction .0": lambda ids: ids.str.replace(r"^(-?\d+)\.0+$", "${1}"),
    "upper and lower case": lambda ids: ids.str.to_lowercase(),
    "quotes": lambda ids: ids.str.strip_chars("\"'"),
}


def unmet_ids(ids: pl.Series, rows: pl.Series, kind: str, name: str) -> list[str]:
    """A warning where no id has a row, or where under half have one and a difference in writing is the cause.

    Args:
        ids: of the events, int64 or text.
        rows: ids of the other table.
        kind: "user" or "item".
        name: of the other table.

    Returns:
        one line, or none.
    """
    ids, rows = (series.unique().cast(pl.String).alias("id") for series in (ids, rows))
    met = ids.is_in(rows.implode())
    if not len(ids) or not len(rows) or 2 * int(met.sum()) >= len(ids):
        return []
    left, right = (
        ids.filter(~met).sort().to_frame(),
        rows.filter(~rows.is_in(ids.implode())).sort().to_frame(),
    )
    pair, cause = _difference(left, right)
    if pair is None and met.any():
        return []
    share = f"{len(left):,} of {len(ids):,} {kind}s" if met.any() else f"none of the {len(ids):,} {kind}s"
    ours, theirs = pair or (left["id"][0], right["id"][0])
    verb = "have no row" if met.any() else "has a row"
    why = f"they differ in {cause}; write both alike" if pair else "take care that both use the same ids"
    return [
        f"{share} of the events {verb} in {name}: {printable(repr(ours))} in the events, {printable(repr(theirs))} there: {why}"
    ]


def _difference(left: pl.DataFrame, right: pl.DataFrame) -> tuple[tuple[str, str] | None, str]:
    """The difference that most ids without a row share with a row, with an example; None where there is none."""
    keys = {name: equal(pl.col("id")) for name, equal in DIFFERENCES.items()}
    together = pl.col("id")
    for equal in DIFFERENCES.values():
        together = equal(together)
    keys["more than one of these: " + ", ".join(DIFFERENCES)] = together
    most, pair, cause = 0, None, ""
    for name, key in keys.items():
        sides = [
            side.with_columns(key.alias("key")).unique("key", keep="first", maintain_order=True)
            for side in (left, right)
        ]
        pairs = sides[0].join(sides[1], on="key", how="inner", maintain_order="left")
        if len(pairs) > most:
            most, pair, cause = len(pairs), (pairs["id"][0], pairs["id_right"][0]), name
    return pair, cause
