"""A table as a file or frame holds it, and errors that name row, column and value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from cllm4rec.messages import counted, printable, shorten

MAX_EXACT_INTEGER = 2**53  # a float64 holds all whole numbers up to it exactly


@dataclass(frozen=True)
class RawTable:
    """A table whose columns are not yet found and checked.

    Attributes:
        frame: the cells: text, numbers, dates or lists. A column of several types has dtype Object.
        name: the file, or what a frame is ("the events").
        columns: names of all columns of the source; `frame` may hold fewer.
        locate: row of `frame` -> "line 12" of a text file, "row 3" of other tables.
        column_advice: follows an error about a missing column. It is "" or begins with "; ".
    """

    frame: pl.DataFrame
    name: str
    columns: list[str]
    locate: Callable[[int], str]
    column_advice: str = ""

    def refuse(self, column: str, is_bad: pl.Series, expected: str) -> None:
        """Raise ValueError if any row is bad; the message names the first one and counts them."""
        bad_rows = is_bad.fill_null(False).arg_true()
        if len(bad_rows):
            location = f"{self.name}, {self.locate(int(bad_rows[0]))}, column {printable(column)}"
            value = self.frame[column].gather([bad_rows[0]]).to_list()[0]
            cell = "an empty cell" if value is None else shorten(repr(value))
            raise ValueError(f"{location}: {cell}: {expected} ({counted(len(bad_rows), 'such row')})")


def row_number(row: int) -> str:
    """The location of a row in a table without lines; the first is row 1."""
    return f"row {row + 1}"


def to_series(values: Sequence[Any]) -> pl.Series:
    """A column of Python values: text, whole numbers or floats if all are alike, else Object."""
    types = {type(value) for value in values} - {type(None)}
    try:
        if not types:
            return pl.Series(values, dtype=pl.Null)
        if types == {str}:
            return pl.Series(values, dtype=pl.String)
        if types == {int}:
            return pl.Series(values, dtype=pl.Int64)
        if types == {float} or (
            types == {int, float}
            and all(value is None or abs(value) <= MAX_EXACT_INTEGER for value in values)
        ):
            return pl.Series(values, dtype=pl.Float64, strict=False)
    except (OverflowError, TypeError, UnicodeEncodeError):
        pass  # a number of more than 64 bits, or half of a surrogate pair
    return pl.Series(values, dtype=pl.Object)


def concatenate(pieces: Sequence[pl.Series]) -> pl.Series:
    """One column from consecutive pieces of it, whose types may differ."""
    types = {piece.dtype for piece in pieces} - {pl.Null()}
    if len(types) <= 1 and types != {pl.Object()}:
        return pl.concat([piece.cast(next(iter(types), pl.Null())) for piece in pieces])
    return to_series([value for piece in pieces for value in piece.to_list()])


def distinct_names(names: list[str], file: str, advice: str = "") -> list[str]:
    """The names of columns. If several have none, those are called by their numbers.

    Raises:
        ValueError: two columns have one name.
    """
    if names.count("") > 1:
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{file}: the header names column {printable(name)} twice: rename one{advice}")
        seen.add(name)
    return names
