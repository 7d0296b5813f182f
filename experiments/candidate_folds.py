"""Folds of all users for `experiments.candidates`: tables of training events and of held-out rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.data.randomness import permutation
from cllm4rec.files.writing import write_text
from experiments.commands import ends_in_one_line

HISTORY = 10  # items before the target, as in LLaRA's rows
VALIDATION_SHARE = 8  # one in so many users outside a fold is for validation
VALIDATION_TARGETS = 3  # last items of a user for validation that are targets; one is little to choose by
ROW_COLUMNS = ("history_items", "target_item")


def read_users(interactions: Path, split: Path, n_folds: int) -> pl.DataFrame:
    """The users that are divided into folds, as `all_users` gives them.

    Args:
        interactions: table of sequences (`item_ids`), or of events (`item_id`, `timestamp`).
        split: held-out rows. Without the column `user_id` each is a user of its own. With it, a row
            replaces the events of that user.
        n_folds: at least 2.

    Raises:
        SystemExit: there are fewer than two folds or more than users, or a table cannot be read or divided.
    """
    events, rows = read_table(interactions, ("user_id",)), read_table(split, ROW_COLUMNS)
    users = all_users(with_ids(interactions, events), with_ids(split, rows))
    if not 2 <= n_folds <= len(users):
        raise SystemExit(
            f"error: --folds {n_folds}: give 2 to {len(users):,}, the number of users, or 0 for the split as "
            "it is"
        )
    return users


def write_folds(users: pl.DataFrame, n_folds: int, output: Path) -> list[Path]:
    """Write `interactions.tsv` and `split.tsv` of each fold, unless its folder has them.

    Args:
        users: as `read_users` gives them.
        n_folds: as there.
        output: folder of the folds fold0, fold1, ...

    Returns:
        The folders of the folds.

    Raises:
        SystemExit: another process writes a fold, or one has a dataset of other tables.
    """
    place = permutation(len(users), 0) % n_folds  # (n_users,) the fold of each
    order = permutation(len(users), 1)
    folders = []
    for fold in range(n_folds):
        folder = output / f"fold{fold}"
        folders.append(folder)
        is_validation = (place != fold) & (order % VALIDATION_SHARE == 0)
        part = np.where(place == fold, "test", np.where(is_validation, "val", "train"))
        parted = users.with_columns(split=pl.Series(part))
        training = parted.filter(pl.col("split") == "train").select("user_id", item_ids=joined("items"))
        tested = parted.filter(pl.col("split") == "test").select("split", "history", "target")
        validated = last_targets(parted.filter(pl.col("split") == "val"), VALIDATION_TARGETS)
        rows = pl.concat([tested, validated.select("split", "history", "target")]).select(
            "split", history_items=joined("history"), target_item="target"
        )
        for name, table in (("interactions.tsv", training), ("split.tsv", rows)):
            file, text = folder / name, table.write_csv(separator="\t", quote_style="never")
            if file.is_file() and file.read_bytes() == text.encode():
                continue
            if (folder / "dataset").is_dir():
                raise SystemExit(
                    f"error: {folder} was made from other tables: remove {output.parent}, or give another "
                    "--output"
                )
            folder.mkdir(parents=True, exist_ok=True)
            with ends_in_one_line():
                write_text(file, text)
    return folders


def with_ids(file: Path, table: pl.DataFrame) -> pl.DataFrame:
    """A table of `read_table` with ids without spaces around them, and lists of ids.

    Args:
        file: named in errors.
        table: events, sequences or held-out rows.

    Raises:
        SystemExit: an id is missing or has a space, a sequence or row has a user of an earlier one, or a
            held-out row has an item twice.
    """
    singles: list[str] = [name for name in ("user_id", "item_id", "target_item") if name in table.columns]
    lists: list[str] = [name for name in ("item_ids", "history_items") if name in table.columns]
    table = table.with_columns(
        *(pl.col(name).fill_null("").str.strip_chars() for name in singles),
        *(pl.col(name).fill_null("").str.extract_all(r"\S+") for name in lists),
    )
    missing = [pl.col(name) == "" for name in singles] + [pl.col(name).list.len() == 0 for name in lists]
    refused = [(name, each, "an id is missing") for name, each in zip(singles + lists, missing, strict=True)]
    of_items = [name for name in singles if name != "user_id"]
    refused += [(name, pl.col(name).str.contains(r"\s"), "an id has a space") for name in of_items]
    if "user_id" in singles and lists:
        again = ~pl.col("user_id").is_first_distinct()
        refused.append(("user_id", again, "this user has an earlier row: one for each user is needed"))
    if "target_item" in singles and "history_items" in lists:
        row = pl.concat_list("history_items", "target_item")
        repeats = row.list.n_unique() < row.list.len()
        refused.append(("target_item", repeats, "a row with each item once is needed"))
    for name, condition, reason in refused:
        if len(lines := table.select(condition.arg_true()).to_series()):
            raise SystemExit(f"error: {file}, line {lines[0] + 2}, column {name}: {reason}")
    return table


def all_users(interactions: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """All users: `user_id`, `history` (list), `target`, and `items` (list), all that is known of them.

    The tables are those of `with_ids`. Events of one time are in the order of the table. Of a user's repeats
    of an item the latest is kept.
    """
    rows = rows.rename({"history_items": "history"})
    if "item_ids" in interactions.columns:
        sequences = interactions.select("user_id", items="item_ids")
    else:
        sequences = (
            interactions.with_columns(pl.col("timestamp").cast(pl.Float64))
            .sort("timestamp", maintain_order=True)
            .group_by("user_id", maintain_order=True)
            .agg(items="item_id")
        )
    latest = pl.col("items").list.reverse().list.unique(maintain_order=True).list.reverse()
    sequences = sequences.with_columns(items=latest)
    whole = pl.concat_list("history", "target_item")
    if "user_id" in rows.columns:
        held_out = rows.select("user_id", "history", target="target_item", items=whole)
        sequences = sequences.join(held_out, on="user_id", how="anti")
    else:
        named = pl.lit("row-") + pl.int_range(1, pl.len() + 1).cast(pl.String)
        held_out = rows.select(user_id=named, history="history", target="target_item", items=whole)
    last = sequences.filter(pl.col("items").list.len() > 1).select(
        "user_id",
        history=pl.col("items").list.head(pl.col("items").list.len() - 1).list.tail(HISTORY),
        target=pl.col("items").list.last(),
        items="items",
    )
    return pl.concat([last, held_out])


def last_targets(users: pl.DataFrame, most: int) -> pl.DataFrame:
    """A row for each of the last items of users, with the items before it as `history`.

    Args:
        users: as `all_users` gives them.
        most: targets of a user. An item that is among those before it is not a target, nor is the first one.
    """
    before, items = pl.col("n_before"), pl.col("items")
    numbered = users.join(pl.DataFrame({"back": range(most)}), how="cross").with_columns(
        n_before=items.list.len().cast(pl.Int64) - 1 - pl.col("back")
    )
    known = numbered.filter(before > 0).with_columns(
        known=items.list.head(before), target=items.list.get(before)
    )
    return known.filter(~pl.col("known").list.contains(pl.col("target"))).with_columns(
        history=pl.col("known").list.tail(HISTORY)
    )


def joined(column: str) -> pl.Expr:
    """A list of ids as a text with spaces."""
    return pl.col(column).list.join(" ")


def read_table(file: Path, columns: Sequence[str]) -> pl.DataFrame:
    """A table with tabs, all cells as text.

    Raises:
        SystemExit: it is no such table, or lacks one of `columns` or the items and their order.
    """
    try:
        table = pl.read_csv(file, separator="\t", quote_char=None, infer_schema=False)
        if "timestamp" in table.columns:
            table["timestamp"].cast(pl.Float64)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"error: {file} is no table with tabs and numbers as times: {reason}") from None
    missing = [name for name in columns if name not in table.columns]
    if columns == ("user_id",) and "item_ids" not in table.columns:
        missing += [name for name in ("item_id", "timestamp") if name not in table.columns]
    if missing:
        raise SystemExit(f"error: {file} has no column {missing[0]}, or is no table with tabs")
    return table
