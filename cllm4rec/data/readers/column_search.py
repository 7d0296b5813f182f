"""The columns that a table of events, items or users has, under whatever names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cllm4rec.data.column_names import ALIASES, JOINERS
from cllm4rec.data.readers.advice import COLUMN_ADVICE
from cllm4rec.data.readers.formats import read_raw
from cllm4rec.data.readers.frames import raw_frame
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import Source, TableFile
from cllm4rec.messages import join_names

Names = Mapping[str, str]  # column of this package -> column of the source


def raw_table(
    source: Any,
    content: str,
    wanted: Sequence[str] | None,
    names: Names | None = None,
    separator: str | None = None,
) -> RawTable:
    """The table of a file or frame. Typed sources keep only columns that may be wanted.

    Args:
        source, names, separator: as in `read_event_table`.
        content: "the events", "the items", "the users" or "the split".
        wanted: columns of this package, the id first; None: all columns of the source.
    """
    names = names or {}
    wanted_columns: dict[str, str | None] | None = None
    if wanted is not None:
        wanted_columns = {
            alias: JOINERS.get(column) for column in wanted for alias in ALIASES.get(column, (column,))
        }
        for column, source_column in names.items():  # a date and a time of day are day+clock
            for name in (source_column, *source_column.split("+")):
                wanted_columns[name] = JOINERS.get(column)
    if not isinstance(source, Source):
        return raw_frame(source, content, wanted_columns)
    file = source if isinstance(source, TableFile) else TableFile(source)
    file = replace(file, content=content, separator=file.separator if separator is None else separator)
    id_name = wanted[0] if wanted else ""
    id_columns = (*([names[id_name]] if id_name in names else []), *ALIASES.get(id_name, ()))
    raw = read_raw(file, wanted_columns, id_columns)
    if raw.frame.is_empty() and raw.frame.columns:
        raise ValueError(f"{raw.name}: the file has a header and no rows")
    return replace(raw, column_advice=raw.column_advice or COLUMN_ADVICE.get(content, ""))


def find_columns(raw: RawTable, wanted: Sequence[str], names: Names | None = None) -> dict[str, str]:
    """Column of this package -> column of the source, for those of the wanted columns that it has.

    Raises:
        ValueError: a named column does not exist, or is not wanted.
    """
    mapping = dict(names or {})
    for column, source_column in mapping.items():
        is_joined = column == "timestamp" and source_column not in raw.columns
        pieces = source_column.split("+") if is_joined else [source_column]
        if not set(pieces) <= set(raw.columns) or len(pieces) > 2 or column not in wanted:
            reason = f"{column!r} cannot be read from a column {source_column!r}"
            ways = f"the table has {join_names(raw.columns)}; what can be read is {', '.join(wanted)}"
            raise ValueError(f"{raw.name}: {reason}: {ways}{raw.column_advice}")
    for column in wanted:
        alias = next((name for name in ALIASES.get(column, (column,)) if name in raw.columns), None)
        if column not in mapping and alias is not None and alias not in mapping.values():
            mapping[column] = alias
    return {column: mapping[column] for column in wanted if column in mapping}


def require_column(raw: RawTable, mapping: Mapping[str, str], column: str) -> None:
    """Raise ValueError if a column was not found."""
    if column not in mapping:
        searched = ", ".join(ALIASES.get(column, (column,)))
        reason = f"no column for {column}: searched for {searched}; the table has {join_names(raw.columns)}"
        raise ValueError(f"{raw.name}: {reason}{raw.column_advice}")
