"""Parquet files: the wanted columns, after a look at what they would unpack to."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from cllm4rec.data.readers.decompression import Allowance, unpacked
from cllm4rec.data.readers.raw import RawTable, row_number

_BYTES_A_CELL = {pl.Boolean(): 1, pl.Int8(): 1, pl.UInt8(): 1, pl.Int16(): 2, pl.UInt16(): 2}
_BYTES_A_CELL |= {pl.Int32(): 4, pl.UInt32(): 4, pl.Float32(): 4, pl.String(): 16, pl.Binary(): 16}


def read_parquet(path: Path, wanted: Mapping[str, str | None] | None, allowance: Allowance) -> RawTable:
    """The wanted columns of a file; all if None.

    Raises:
        ValueError: they unpack to more than is allowed.
    """
    content = unpacked(path, allowance) if path.name.lower().endswith(".gz") else None

    def source() -> BinaryIO | Path:
        return path if content is None else io.BytesIO(content)

    schema = pl.read_parquet_schema(source())
    names = [name for name in schema if wanted is None or name in wanted]
    n_rows = pl.scan_parquet(source()).select(pl.len()).collect().item()
    n_cells = n_rows * sum(_BYTES_A_CELL.get(schema[name], 8) for name in names)
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        allowance.take(max(n_cells, _unpacked_size(file, set(names))), str(path))
    return RawTable(pl.read_parquet(source(), columns=names), str(path), list(schema), row_number)


def _unpacked_size(file: BinaryIO, names: set[str]) -> int:
    """Bytes of the columns before compression, as the file's footer says.

    Field numbers are those of parquet.thrift: FileMetaData.row_groups 4, RowGroup.columns 1,
    ColumnChunk.meta_data 3, ColumnMetaData.path_in_schema 3 and .total_uncompressed_size 6.
    """
    file.seek(-8, io.SEEK_END)
    end = file.tell()
    length = int.from_bytes(file.read(4), "little")
    file.seek(end - length)
    try:
        footer = _Thrift(file.read(length)).struct()
        chunks = [chunk.get(3, {}) for group in footer.get(4, []) for chunk in group.get(1, [])]
        return sum(
            chunk.get(6, 0) for chunk in chunks if chunk.get(3, [b""])[0].decode(errors="replace") in names
        )
    except (
        AttributeError,
        IndexError,
        TypeError,
        RecursionError,
    ) as error:  # values of other types, or too deep
        raise OSError("its footer is damaged") from error


class _Thrift:
    """Values in Thrift's compact protocol, which Parquet's footer is in: a struct is a dict by field number."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = head & 15 == 1 if head & 15 < 3 else self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        if kind < 4:  # a boolean in a list, a byte
            return self._byte()
        if kind < 7:
            return self._signed()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind < 11:
            return self._items()
        if kind == 12:
            return self.struct()
        raise OSError("its footer is damaged")

    def _items(self) -> list[Any]:
        head = self._byte()
        n = head >> 4 if head >> 4 < 15 else self._unsigned()
        return [self._value(head & 15) for _ in range(min(n, len(self.data)))]

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, n: int) -> bytes:
        found = self.data[self.at : self.at + n]
        if len(found) < n:
            raise OSError("its footer is damaged")
        self.at += n
        return found

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
