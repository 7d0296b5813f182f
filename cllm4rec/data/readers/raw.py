"""A table as it stands in a file or a frame, and errors that say where in it something is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from cllm4rec.messages import counted, printable, shorten

EXACT = 2**53  # whole numbers up to this one are exact as floats


@dataclass(frozen=True)
class RawTable:
    """A table before its columns are taken.

    Attributes:
        frame: the cells: text, numbers, dates or lists; a column of several types is of dtype Object.
        name: of the file, or what the frame is ("the events").
        columns: names of all columns that are there; `frame` may hold fewer.
        where: number of a row of `frame` -> its place as a person finds it: "line 12" of a text file, "row 3" elsewhere.
        hint: follows an error about a missing column; "" or "; " and a way to read the file otherwise.
    """

    frame: pl.DataFrame
    name: str
    columns: list[str]
    where: Callable[[int], str]
    hint: str = ""

    def refuse(self, column: str, bad: pl.Series, need: str) -> None:
        """An error that names the first row where `bad` holds, if there is one."""
        rows = bad.fill_null(False).arg_true()
        if len(rows):
            place = f"{self.name}, {self.where(int(rows[0]))}, column {printable(column)}"
            value = self.frame[column].gather([rows[0]]).to_list()[0]
            cell = "an empty cell" if value is None else shorten(repr(value))
            raise ValueError(f"{place}: {cell}: {need} ({counted(len(rows), 'such row')})")


def row_number(row: int) -> str:
    """The place of a row in a table that has no lines; the first is row 1."""
    return f"row {row + 1}"


def series_of(values: Sequence[Any]) -> pl.Series:
    """A column of Python's values: text, whole numbers or floats where all are alike, else Object."""
    kinds = {type(value) for value in values} - {type(None)}
    try:
        if not kinds:
            return pl.Series(values, dtype=pl.Null)
        if kinds == {str}:
            return pl.Series(values, dtype=pl.String)
        if kinds == {int}:
            return pl.Series(values, dtype=pl.Int64)
        if kinds == {float} or (
            kinds == {int, float} and all(value is None or abs(value) <= EXACT for value in values)
        ):
            return pl.Series(values, dtype=pl.Float64, strict=False)
    except (OverflowError, TypeError, UnicodeEncodeError):
        pass  # a number of more than 64 bits; half of a surrogate pair
    return pl.Series(values, dtype=pl.Object)


def joined(parts: Sequence[pl.Series]) -> pl.Series:
    """One column of several."""
    kinds = {part.dtype for part in parts} - {pl.Null()}
    if len(kinds) <= 1 and kinds != {pl.Object()}:
        return pl.concat([part.cast(next(iter(kinds), pl.Null())) for part in parts])
    return series_of([value for part in parts for value in part.to_list()])
