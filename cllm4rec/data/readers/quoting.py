"""Quotes in text tables that need none: a column whose cells are all in quotes is read without them."""

import re
from collections.abc import Collection

import numpy as np
import polars as pl

_CELL = re.compile(r'"((?:[^"]|"")*)"')


def unquoted_cell(cell: str) -> str:
    """A cell without the quotes around it; one that is not quoted, or not rightly, as it is."""
    found = _CELL.fullmatch(cell)
    return found[1].replace('""', '"') if found else cell


def unquoted(frame: pl.DataFrame, wanted: Collection[str] | None = None) -> pl.DataFrame:
    """A table of text, its wanted columns without quotes where all cells that are not empty are quoted."""
    names = [name for name in frame.columns if wanted is None or name in wanted]
    return frame.with_columns(_unquoted(frame[name]) for name in names)


def _unquoted(column: pl.Series) -> pl.Series:
    first = column[int(column.is_not_null().arg_max() or 0)] if len(column) else None
    if first is None or unquoted_cell(first) is first:
        return column
    inner = column.str.strip_prefix('"').str.strip_suffix('"')
    n_quotes = column.str.len_bytes() - inner.str.len_bytes()
    single = inner.str.replace_all('""', "", literal=True).str.contains('"', literal=True)
    if not (n_quotes == 2).all() or single.any():
        return column
    inner = inner.str.replace_all('""', '"', literal=True)
    return inner.set(inner == "", None)


def escaped_quotes(column: pl.Series) -> pl.Series:
    """Where a cell has quotes after backslashes inside of quotes, in a column whose filled cells are all in quotes."""
    quoted = column.str.starts_with('"') & column.str.ends_with('"') & (column.str.len_bytes() > 1)
    if not quoted.all():
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    return column.str.contains(r'\\".')


def separators_outside(data: bytes, separator: str, quoted: bool) -> int | None:
    """The number of separators outside quotes; None where a quote is inside a cell, or a line ends oddly."""
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return None
    if not quoted or b'"' not in data:
        return data.count(separator.encode())
    text = np.frombuffer(b"\n" + data + b"\n", dtype=np.uint8)
    quotes = _quotes(text, separator)
    if quotes is None:
        return None
    places = np.flatnonzero(text == ord(separator))
    return int((np.searchsorted(quotes, places) % 2 == 0).sum())


def _quotes(text: np.ndarray, separator: str) -> np.ndarray | None:
    """Positions of the quotes, unless one neither begins nor ends a cell, nor is doubled in it."""
    quotes = np.flatnonzero(text == ord('"'))
    edges = np.frombuffer(f'\r\n"{separator}'.encode(), dtype=np.uint8)
    good = len(quotes) % 2 == 0 and (
        np.isin(text[quotes[0::2] - 1], edges).all() and np.isin(text[quotes[1::2] + 1], edges).all()
    )
    return quotes if good else None


def has_quoted_column(data: bytes, separator: str, has_header: bool) -> bool:
    """Whether a column has all its cells that are not empty in quotes; they may hold separators and line ends.

    Only where each quote begins or ends a cell, or is doubled inside, and all rows have as many cells.
    """
    text = np.frombuffer(b"\n" + data.replace(b"\r\n", b"\n"), dtype=np.uint8)
    quotes = _quotes(text, separator)
    if quotes is None:
        return False
    ends = np.flatnonzero((text == ord(separator)) | (text == ord("\n")))
    ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    lines = text[ends] == ord("\n")
    blank = lines[1:] & lines[:-1] & (np.diff(ends) == 1)
    ends = ends[np.concatenate([[True], ~blank])]
    begins, lengths = ends[:-1] + 1, np.diff(ends) - 1
    is_line_end = text[ends[1:]] == ord("\n")
    n = int(np.argmax(is_line_end)) + 1
    if len(begins) % n or not is_line_end[n - 1 :: n].all() or is_line_end.sum() * n != len(begins):
        return False
    skip = n if has_header else 0
    columns = np.arange(len(begins) - skip) % n
    filled = np.bincount(columns[lengths[skip:] > 0], minlength=n)
    quoted = np.bincount(columns[text[begins[skip:]] == ord('"')], minlength=n)
    return bool(((filled == quoted) & (filled > 0)).any())
