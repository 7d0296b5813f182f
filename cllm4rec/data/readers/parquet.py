"""Parquet files: the wanted columns, after a check of what they would unpack to."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from cllm4rec.data.readers.decompression import has_gzip_name, read_unpacked
from cllm4rec.data.readers.raw import RawTable, row_number
from cllm4rec.data.readers.source import SourceFile

_BYTES_PER_CELL = {pl.Boolean(): 1, pl.Int8(): 1, pl.UInt8(): 1, pl.Int16(): 2, pl.UInt16(): 2}
_BYTES_PER_CELL |= {pl.Int32(): 4, pl.UInt32(): 4, pl.Float32(): 4, pl.String(): 16, pl.Binary(): 16}
_DEFAULT_BYTES = 8
DAMAGED_FOOTER = "its footer is damaged"


def read_parquet(file: SourceFile) -> RawTable:
    """Read the wanted columns.

    Raises:
        ValueError: they unpack to more than is allowed.
        OSError: the file is damaged.
    """
    path, wanted = file.path, file.wanted_columns
    content = read_unpacked(path, file.allowance) if has_gzip_name(path) else None

    def source() -> BinaryIO | Path:
        return path if content is None else io.BytesIO(content)

    schema = pl.read_parquet_schema(source())
    names = [name for name in schema if wanted is None or name in wanted]
    n_rows = pl.scan_parquet(source()).select(pl.len()).collect().item()
    n_cell_bytes = n_rows * sum(_BYTES_PER_CELL.get(schema[name], _DEFAULT_BYTES) for name in names)
    with path.open("rb") if content is None else io.BytesIO(content) as opened:
        file.allowance.take(max(n_cell_bytes, _unpacked_bytes(opened, set(names))), file.name)
    return RawTable(pl.read_parquet(source(), columns=names), file.name, list(schema), row_number)


def _unpacked_bytes(file: BinaryIO, names: set[str]) -> int:
    """Bytes of the columns before compression, by the file's footer.

    Field numbers are those of parquet.thrift: FileMetaData.row_groups 4, RowGroup.columns 1,
    ColumnChunk.meta_data 3, ColumnMetaData.path_in_schema 3 and .total_uncompressed_size 6.

    Raises:
        OSError: the footer is damaged.
    """
    file.seek(-8, io.SEEK_END)  # the file ends in the footer's length (4 bytes) and a mark
    end = file.tell()
    length = int.from_bytes(file.read(4), "little")
    file.seek(end - length)
    try:
        footer = _ThriftReader(file.read(length)).struct()
        chunks = [chunk.get(3, {}) for group in footer.get(4, []) for chunk in group.get(1, [])]
        return sum(
            chunk.get(6, 0) for chunk in chunks if chunk.get(3, [b""])[0].decode(errors="replace") in names
        )
    except (AttributeError, IndexError, TypeError, RecursionError) as error:  # wrong types, or too deep
        raise OSError(DAMAGED_FOOTER) from error


class _ThriftReader:
    """Values in Thrift's compact protocol, the format of the footer. A struct is a dict by field number."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():  # upper half: difference of field numbers; lower half: type
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = head & 15 == 1 if head & 15 < 3 else self._value(head & 15)
        return fields

    def _value(self, thrift_type: int) -> Any:
        if thrift_type < 4:  # a boolean in a list, a byte
            return self._byte()
        if thrift_type < 7:
            return self._signed()
        if thrift_type == 7:  # a float
            return self._bytes(8)
        if thrift_type == 8:  # bytes
            return self._bytes(self._unsigned())
        if thrift_type < 11:
            return self._elements()
        if thrift_type == 12:
            return self.struct()
        raise OSError(DAMAGED_FOOTER)

    def _elements(self) -> list[Any]:
        head = self._byte()
        n = head >> 4 if head >> 4 < 15 else self._unsigned()
        return [self._value(head & 15) for _ in range(min(n, len(self.data)))]

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, n: int) -> bytes:
        content = self.data[self.offset : self.offset + n]
        if len(content) < n:
            raise OSError(DAMAGED_FOOTER)
        self.offset += n
        return content

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
