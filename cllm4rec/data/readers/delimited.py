"""Text tables with a header: .tsv, .csv, any file with a given separator or a first line `sep=;`."""

from collections.abc import Collection

from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import SourceFile
from cllm4rec.data.readers.text import TextTable, stated_separator

SEPARATORS = {"tsv": "\t", "csv": ","}


def is_delimited(file: SourceFile) -> bool:
    """Whether the name, the options or the first line tell the separator."""
    is_told = file.suffix in SEPARATORS or file.options.separator is not None
    return is_told or stated_separator(file.sample) is not None


def read_delimited(file: SourceFile) -> RawTable:
    """Read a text table; all cells are text.

    Raises:
        ValueError: the separator of the first line is another than the given one, or the table is wrong.
    """
    return read_cells(file, SEPARATORS.get(file.suffix), file.wanted_columns)


def read_cells(file: SourceFile, usual_separator: str | None, columns: Collection[str] | None) -> RawTable:
    """Read a text table.

    Args:
        file: the file.
        usual_separator: the separator unless the options or the first line name one.
        columns: those that may be needed; None: all.

    Raises:
        ValueError: as `read_delimited`.
    """
    given, stated = file.options.separator, stated_separator(file.text)
    if stated is not None and given not in (None, stated):
        contradiction = f"its first line says sep={stated}, and `separator` says {given!r}"
        raise ValueError(f"{file.path}: {contradiction}: remove that line, or do not give a separator")
    separator = given or stated or usual_separator
    assert separator is not None, "the file was recognised by its separator"
    table = TextTable(
        file.text,
        file.name,
        separator,
        quoted=file.suffix == "csv",
        numbered=not file.options.header,
        escape=file.options.escape,
        content=file.options.content,
    )
    return table.raw(columns)
