"""RecBole's atomic files (.inter, .item, .user): tab-separated, with `name:type` in the header."""

from dataclasses import replace

from cllm4rec.data.readers.delimited import read_cells
from cllm4rec.data.readers.raw import RawTable, distinct_names
from cllm4rec.data.readers.source import SourceFile


def read_recbole(file: SourceFile) -> RawTable:
    """Read an atomic file; the types are removed from the names of the columns.

    Raises:
        ValueError: the table is wrong, or two columns have one name.
    """
    raw = read_cells(file, "\t", columns=None)
    if not file.options.header:
        return raw
    names = distinct_names([column.split(":", 1)[0] for column in raw.columns], file.name)
    frame = raw.frame.rename(dict(zip(raw.columns, names, strict=True)))
    return replace(raw, frame=frame, columns=names)
