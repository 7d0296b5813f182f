"""Quotes in text tables that need none: they are removed from columns whose cells are all quoted."""

import re
from collections.abc import Collection

import numpy as np
import polars as pl

_QUOTED_CELL = re.compile(r'"((?:[^"]|"")*)"')


def unquote_cell(cell: str) -> str:
    """The cell without its quotes; a cell that is not correctly quoted is returned as it is."""
    match = _QUOTED_CELL.fullmatch(cell)
    return match[1].replace('""', '"') if match else cell


def unquote_columns(frame: pl.DataFrame, columns: Collection[str] | None = None) -> pl.DataFrame:
    """A table of text without the quotes of those columns whose non-empty cells are all quoted.

    Args:
        frame: the cells.
        columns: the columns to look at; None: all.
    """
    names = [name for name in frame.columns if columns is None or name in columns]
    return frame.with_columns(_unquote(frame[name]) for name in names)


def _unquote(column: pl.Series) -> pl.Series:
    filled_cell = column[int(column.is_not_null().arg_max() or 0)] if len(column) else None
    if filled_cell is None or unquote_cell(filled_cell) is filled_cell:
        return column
    inner = column.str.strip_prefix('"').str.strip_suffix('"')
    n_quotes = column.str.len_bytes() - inner.str.len_bytes()
    has_single_quote = inner.str.replace_all('""', "", literal=True).str.contains('"', literal=True)
    if not (n_quotes == 2).all() or has_single_quote.any():
        return column
    inner = inner.str.replace_all('""', '"', literal=True)
    return inner.set(inner == "", None)


def has_escaped_quotes(column: pl.Series) -> pl.Series:
    r"""Where a quoted cell holds \", in a column whose non-empty cells are all quoted."""
    is_quoted = column.str.starts_with('"') & column.str.ends_with('"') & (column.str.len_bytes() > 1)
    if not is_quoted.all():
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    return column.str.contains(r'\\".')


def count_separators(data: bytes, separator: str, quoted: bool) -> int | None:
    """The number of separators outside quotes.

    None if it is not certain: a quote is inside a cell, or a line ends in a single carriage return.
    """
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return None
    if not quoted or b'"' not in data:
        return data.count(separator.encode())
    text = np.frombuffer(b"\n" + data + b"\n", dtype=np.uint8)
    quotes = _quote_offsets(text, separator)
    if quotes is None:
        return None
    separators = np.flatnonzero(text == ord(separator))
    return int((np.searchsorted(quotes, separators) % 2 == 0).sum())


def _quote_offsets(text: np.ndarray, separator: str) -> np.ndarray | None:
    """Offsets of the quotes; None if one neither begins nor ends a cell, nor is doubled in it."""
    quotes = np.flatnonzero(text == ord('"'))
    cell_edges = np.frombuffer(f'\r\n"{separator}'.encode(), dtype=np.uint8)
    is_regular = (
        len(quotes) % 2 == 0
        and np.isin(text[quotes[0::2] - 1], cell_edges).all()
        and np.isin(text[quotes[1::2] + 1], cell_edges).all()
    )
    return quotes if is_regular else None


def has_quoted_column(data: bytes, separator: str, has_header: bool) -> bool:
    """Whether a column has all its non-empty cells in quotes; they may hold separators and line ends.

    False as well if a quote neither begins nor ends a cell nor is doubled, or if rows differ in length.
    """
    text = np.frombuffer(b"\n" + data.replace(b"\r\n", b"\n"), dtype=np.uint8)
    quotes = _quote_offsets(text, separator)
    if quotes is None:
        return False
    # Cell i is between ends[i] and ends[i + 1]; an end is a separator or line end outside quotes.
    ends = np.flatnonzero((text == ord(separator)) | (text == ord("\n")))
    ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    is_newline = text[ends] == ord("\n")
    is_blank_line = is_newline[1:] & is_newline[:-1] & (np.diff(ends) == 1)
    ends = ends[np.concatenate([[True], ~is_blank_line])]
    begins, lengths = ends[:-1] + 1, np.diff(ends) - 1
    ends_row = text[ends[1:]] == ord("\n")
    n_columns = int(np.argmax(ends_row)) + 1
    is_rectangle = (
        len(begins) % n_columns == 0
        and ends_row[n_columns - 1 :: n_columns].all()
        and ends_row.sum() * n_columns == len(begins)
    )
    if not is_rectangle:
        return False
    n_skipped = n_columns if has_header else 0
    column = np.arange(len(begins) - n_skipped) % n_columns
    n_filled = np.bincount(column[lengths[n_skipped:] > 0], minlength=n_columns)
    n_quoted = np.bincount(column[text[begins[n_skipped:]] == ord('"')], minlength=n_columns)
    return bool(((n_filled == n_quoted) & (n_filled > 0)).any())
