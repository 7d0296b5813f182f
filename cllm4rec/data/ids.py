"""External ids as numbers. Texts are hashed once; later steps compare whole numbers."""

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from cllm4rec.messages import escaped, is_unicode, shorten


def with_categories(events: pl.DataFrame) -> pl.DataFrame:
    """Events with text ids as categories, which are compared, counted and copied as numbers."""
    text_columns = [name for name in ("user_id", "item_id") if events.schema[name] == pl.String]
    return events.with_columns(_categories(events[name]) for name in text_columns)


def _categories(texts: pl.Series) -> pl.Series:
    """Texts as categories.

    Finds the distinct texts by sorting hashes, three times faster than one dictionary lookup per row.
    Then verifies that no two texts share a hash, else hashes again with another seed.
    """
    seed = 0
    while True:
        code = (texts.hash(seed).rank("dense") - 1).cast(pl.Int64)
        names = texts.gather(_row_of_each(code.to_numpy()))
        if (names.gather(code) == texts).all():
            return names.cast(pl.Categorical).gather(code).alias(texts.name)
        seed += 1


def _row_of_each(code: np.ndarray) -> np.ndarray:
    """A row in which each of the codes 0 .. max occurs, int64 (max + 1,); -1 if it does not occur."""
    rows = np.full(code.max(initial=-1) + 1, -1)
    rows[code] = np.arange(len(code))
    return rows


def codes(ids: pl.Series) -> np.ndarray:
    """Codes of ids, int64 (n,): small whole numbers from 0, equal where the ids are equal.

    Args:
        ids: text, categories or whole numbers, none null.
    """
    if ids.dtype == pl.String:
        ids = _categories(ids)
    numbers = ids.to_physical() if ids.dtype == pl.Categorical else ids.rank("dense") - 1
    return numbers.cast(pl.Int64).to_numpy()


def pair_codes(events: pl.DataFrame) -> np.ndarray:
    """Codes of (user, item) pairs, int64 (n,), equal where both are equal."""
    users, items = codes(events["user_id"]), codes(events["item_id"])
    return users * (items.max(initial=0) + 1) + items


def repeated(numbers: np.ndarray) -> pl.Series:
    """Mask (n,) of the numbers that occur more than once.

    Sorts, which is faster than a table of counts where most numbers occur once.
    """
    ordered = np.sort(numbers)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return pl.Series(numbers).is_in(pl.Series(twice).implode())


def row_numbers(column: pl.Series, ids: pl.Series) -> np.ndarray:
    """The row in `ids` of each id of `column`, int64 (n,). Ids are compared as text; all must be in `ids`."""
    code = codes(column)
    row = _row_of_each(code)
    used = np.flatnonzero(row >= 0)
    names = column.gather(row[used]).cast(pl.String)
    numbers = np.arange(len(ids), dtype=np.int64)
    row[used] = names.replace_strict(ids.cast(pl.String), numbers, return_dtype=pl.Int64).to_numpy()
    return row[code]


# Up to this many ids are looked up by a scan; a dictionary of all ids takes longer to build.
IDS_WITHOUT_DICTIONARY = 100


def listed_ids(ids: object, name: str) -> list[str | int]:
    """Ids that a caller gives, as a list of Python's texts and whole numbers.

    Args:
        ids: a list, an array of NumPy or Arrow, or a column of pandas or Polars.
        name: of the argument, for errors.

    Raises:
        ValueError: it is a single id or no list of ids, or holds something else (3.0, None, True).
    """
    elements = listed(ids, name, "a list of ids")
    found = [_plain(value) for value in elements]
    for value in found:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(
                f"`{name}` holds {shorten(escaped(repr(value)))}: expected ids, text or whole numbers"
            )
    return found


def listed(values: object, name: str, expected: str) -> list[Any]:
    """The elements of a list, an array or a column.

    Args:
        values: what a caller gives.
        name: of the argument, for errors.
        expected: what it should be, for errors.

    Raises:
        ValueError: it is a text, a mapping, a table or no collection at all.
    """
    if hasattr(type(values), "columns"):  # of pandas, Polars or Arrow
        raise ValueError(
            f"`{name}` is a table, not {expected}: give a column of it. A table of events is given as "
            "dataset=dataset.with_histories(table)"
        )
    values = _plain(values)
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"`{name}` is {shorten(escaped(repr(values)))}: expected {expected}")
    return list(values)


def _plain(value: Any) -> Any:
    """A scalar of NumPy, or a scalar or array of Arrow, as Python's value; other values as they are."""
    for convert in ("to_pylist", "as_py"):  # Arrow, which is not imported
        if hasattr(value, convert):
            return getattr(value, convert)()
    is_scalar = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if is_scalar else value


class IdMap:
    """External ids <-> numbers 0 .. n-1. Ids keep their type, text or integers; look-ups compare text."""

    _compared: tuple[weakref.ref["IdMap"], bool] | None = None  # with which map, and whether it is the same

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids

    @classmethod
    def ordered_by_hash(cls, ids: pl.Series) -> "IdMap":
        """A map of the distinct ids, numbered in the order of their hashes.

        Hence a number says nothing about popularity or age.
        """
        distinct = ids.unique()
        distinct = distinct.cast(pl.String) if distinct.dtype == pl.Categorical else distinct
        hashed = pl.DataFrame({"id": distinct, "hash": hash_ids(distinct)})
        hashed = hashed.sort("hash", pl.col("id").cast(pl.String))
        numbered = cls(hashed["id"].alias(ids.name))
        numbered.hashes = hashed["hash"].to_numpy()
        return numbered

    def __len__(self) -> int:
        return len(self.ids)

    def is_same(self, other: "IdMap") -> bool:
        """Whether the ids are equal, in the same order. The last map and answer are kept."""
        if self is other:
            return True
        compared = self._compared
        if compared is None or compared[0]() is not other:
            compared = self._compared = weakref.ref(other), self.ids.equals(other.ids)
        return compared[1]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the weak reference."""
        return {name: value for name, value in self.__dict__.items() if name != "_compared"}

    def __repr__(self) -> str:
        return f"<IdMap of {len(self):,} ids>"

    @cached_property
    def hashes(self) -> np.ndarray:
        """`hash_ids` of the ids, int64 (n,)."""
        return hash_ids(self.ids)

    @cached_property
    def ranks_by_hash(self) -> np.ndarray:
        """Rank of each id in the order of hashes, then of texts, int64 (n,)."""
        order = np.lexsort((self.ids.cast(pl.String).to_numpy(), self.hashes))
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[order] = np.arange(len(self))
        return ranks

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.ids.cast(pl.String).to_list())}

    def build_dictionary(self) -> None:
        """Build the dictionary of all ids now, which then finds few ids too: for a long-running process."""
        _ = self._numbers

    def find(self, ids: Iterable[object]) -> np.ndarray:
        """Numbers of external ids, int64 (n,); -1 for an unknown id."""
        texts = [str(name) for name in ids]
        scan = "_numbers" not in self.__dict__ and len(texts) <= IDS_WITHOUT_DICTIONARY
        numbers = self._scan(texts) if scan else self._numbers
        return np.array([numbers.get(text, -1) for text in texts], dtype=np.int64)

    def _scan(self, texts: list[str]) -> dict[str, int]:
        """Id -> number of the known ids among `texts`, without a dictionary of all ids."""
        names = self.ids.cast(pl.String)
        numbers = names.is_in([text for text in texts if is_unicode(text)]).arg_true()
        return dict(zip(names.gather(numbers).to_list(), numbers.to_list(), strict=True))

    def index(self, ids: Iterable[object], kind: str = "id") -> np.ndarray:
        """Numbers of external ids, int64 (n,).

        Args:
            ids: external ids, in a list, an array or a column.
            kind: "user" or "item", for errors.

        Raises:
            ValueError: an id is unknown; the message names the first such id and `kind`. Or `ids` is a single
                id or a table.
        """
        ids = listed(ids, "ids", "a list of ids")
        numbers = self.find(ids)
        if (numbers < 0).any():
            unknown = [str(name) for name, number in zip(ids, numbers, strict=True) if number < 0]
            raise ValueError(
                f"{kind} {unknown[0]!r} is not in the data ({len(unknown)} of {len(ids)} unknown)"
            )
        return numbers

    def names(self, numbers: np.ndarray) -> pl.Series:
        """External ids of numbers, of their type.

        Raises:
            ValueError: a number is negative, as `rank` gives where the catalogue ran out.
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        if (numbers < 0).any():
            raise ValueError(f"number {numbers.min()} is that of no id: leave out the indices that hold -1")
        return self.ids[numbers]


def hash_ids(ids: Iterable[object]) -> np.ndarray:
    """63-bit hash of each id's text, int64 (n,), equal on every machine (BLAKE2b)."""
    digests = (hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in ids)
    hashes = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).astype(np.int64)
    return hashes & np.int64(2**63 - 1)


def hash_column(ids: pl.Series) -> np.ndarray:
    """`hash_ids` of a column with repeated ids, int64 (n,); each distinct id is hashed once."""
    code = codes(ids)
    row = _row_of_each(code)
    used = np.flatnonzero(row >= 0)
    hashes = np.zeros(len(row), dtype=np.int64)
    hashes[used] = hash_ids(ids.gather(row[used]))
    return hashes[code]
