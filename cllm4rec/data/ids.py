"""External ids as numbers: text is hashed once, and whole numbers are compared after that."""

import hashlib
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import polars as pl


def with_categories(events: pl.DataFrame) -> pl.DataFrame:
    """Events whose ids of text are categories, which are compared, counted and copied as numbers."""
    text = [name for name in ("user_id", "item_id") if events.schema[name] == pl.String]
    return events.with_columns(_categories(events[name]) for name in text)


def _categories(texts: pl.Series) -> pl.Series:
    """Texts as categories. Only the distinct ones are looked up: which are equal is told by sorting their hashes, in a third
    of the time of a look-up each, and then checked. Should two texts share a hash, another one is taken."""
    seed = 0
    while True:
        code = (texts.hash(seed).rank("dense") - 1).cast(pl.Int64)
        names = texts.gather(_row_of_each(code.to_numpy()))
        if (names.gather(code) == texts).all():
            return names.cast(pl.Categorical).gather(code).alias(texts.name)
        seed += 1


def _row_of_each(code: np.ndarray) -> np.ndarray:
    """A row in which 0, 1, 2, ... stands, int64; -1 for a number that stands nowhere."""
    rows = np.full(code.max(initial=-1) + 1, -1)
    rows[code] = np.arange(len(code))
    return rows


def codes(ids: pl.Series) -> np.ndarray:
    """Small whole numbers from 0, int64, equal where the ids (none null) are equal; which number an id gets says nothing."""
    if ids.dtype == pl.String:
        ids = _categories(ids)
    numbers = ids.to_physical() if ids.dtype == pl.Categorical else ids.rank("dense") - 1
    return numbers.cast(pl.Int64).to_numpy()


def pair_codes(events: pl.DataFrame) -> np.ndarray:
    """Whole numbers, int64, that are equal where user and item are."""
    users, items = codes(events["user_id"]), codes(events["item_id"])
    return users * (items.max(initial=0) + 1) + items


def repeated(numbers: np.ndarray) -> pl.Series:
    """Where a number stands that occurs more than once; sorted, as that is faster than a table where most occur once."""
    ordered = np.sort(numbers)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return pl.Series(numbers).is_in(pl.Series(twice).implode())


def row_numbers(column: pl.Series, ids: pl.Series) -> np.ndarray:
    """The row of each of the column's ids in `ids`, compared as text, int64; all have to be there."""
    code = codes(column)
    row = _row_of_each(code)
    used = np.flatnonzero(row >= 0)
    names = column.gather(row[used]).cast(pl.String)
    rows = np.arange(len(ids), dtype=np.int64)
    row[used] = names.replace_strict(ids.cast(pl.String), rows, return_dtype=pl.Int64).to_numpy()
    return row[code]


def id_rows(seen: pl.Series, table: pl.DataFrame | None, key: str) -> pl.DataFrame:
    """One row for each id that occurs in `seen`, ordered by the hash of the id, with the table's columns joined on."""
    ids = seen.unique()
    ids = ids.cast(pl.String) if ids.dtype == pl.Categorical else ids
    by_hash = [pl.Series("_hash", hash_ids(ids)), pl.col(key).cast(pl.String)]
    rows = ids.alias(key).to_frame().sort(by_hash)
    if table is None:
        return rows
    by_text = table.with_columns(pl.col(key).cast(pl.String)).unique(key, keep="first", maintain_order=True)
    joined = rows.with_columns(pl.col(key).cast(pl.String).alias("_text")).join(
        by_text.rename({key: "_text"}), on="_text", how="left", maintain_order="left"
    )
    return joined.drop("_text").with_columns(pl.exclude(key).cast(pl.String).fill_null(""))


FEW = 100  # ids that are looked up without a dictionary of all


class IdMap:
    """External ids <-> numbers 0 .. n-1. Ids keep the type they came in (text or integers); look-ups go by their text."""

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.ids.cast(pl.String).to_list())}

    def find(self, ids: Iterable[object]) -> np.ndarray:
        """Numbers of external ids, int64, -1 for an id that is not here."""
        asked = [str(one) for one in ids]
        numbers = (
            self._numbers if "_numbers" in self.__dict__ or len(asked) > FEW else self._numbers_of(asked)
        )
        return np.array([numbers.get(one, -1) for one in asked], dtype=np.int64)

    def _numbers_of(self, ids: list[str]) -> dict[str, int]:
        """Those of some ids, without a dictionary of all."""
        texts = self.ids.cast(pl.String)
        numbers = texts.is_in(ids).arg_true()
        return dict(zip(texts.gather(numbers).to_list(), numbers.to_list(), strict=True))

    def index(self, ids: Iterable[object], kind: str = "id") -> np.ndarray:
        """Numbers of external ids, int64.

        Raises:
            ValueError: an id is unknown; the message names the first such id and `kind`.
        """
        ids = list(ids)
        numbers = self.find(ids)
        if (numbers < 0).any():
            missing = [str(one) for one, number in zip(ids, numbers, strict=True) if number < 0]
            raise ValueError(
                f"{kind} {missing[0]!r} is not in the data ({len(missing)} of {len(ids)} unknown)"
            )
        return numbers

    def names(self, numbers: np.ndarray) -> pl.Series:
        """External ids of numbers, in their own type.

        Raises:
            ValueError: a number is negative, as the places of `recommend` are where the catalogue ran out.
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        if (numbers < 0).any():
            raise ValueError(f"number {numbers.min()} stands for no id: leave out the places that hold -1")
        return self.ids.gather(numbers)


def hash_ids(ids: Iterable[object]) -> np.ndarray:
    """A 63-bit hash of each external id's text, int64, equal on every machine (BLAKE2b)."""
    digests = (hashlib.blake2b(str(one).encode(), digest_size=8).digest() for one in ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).astype(np.int64) & np.int64(
        2**63 - 1
    )
