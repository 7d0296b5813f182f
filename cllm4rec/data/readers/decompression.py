"""The bytes of files: gzip is unpacked up to a limit, text is converted to UTF-8."""

import codecs
import gzip
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

BYTES_PER_GIB = 2**30
MAX_COMPRESSION_RATIO = 100  # unpacked size / file size, if no limit is given
BYTES_AT_ONCE = 2**20
MAX_RECORD_BYTES = 2**26
MAX_BLANK_LINES = 2**16  # in a row
UTF8_MARK = b"\xef\xbb\xbf"
# First bytes of a file that is not plain text -> advice.
OTHER_CONTENT = {
    b"\x1f\x8b": "it is compressed by gzip: let its name end in .gz",
    b"PK\x03\x04": "it is a zip archive or a spreadsheet: unpack it, or save it as .csv",
    b"BZh": "it is compressed by bzip2: unpack it, or compress it by gzip",
    b"\xfd7zXZ": "it is compressed by xz: unpack it, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd: unpack it, or compress it by gzip",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive: unpack it",
    b"PAR1": "it is Parquet: let its name end in .parquet",
}
# UTF-32 comes first: its little-endian mark begins with that of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NONBLANK_LINE = re.compile(rb"\S[^\n]*\n?")
_BLANK_LINE = re.compile(rb"\n\s*\n")


class Allowance:
    """The number of bytes that the compressed files of one table may unpack to.

    Args:
        n_packed: size of the files in bytes.
        gib: the limit in GiB. None: `MAX_COMPRESSION_RATIO` times the size, and at least 1 GiB.

    Raises:
        ValueError: `gib` is not a finite number above 0.
    """

    def __init__(self, n_packed: int, gib: float | None) -> None:
        if gib is not None and not (math.isfinite(gib) and gib > 0):
            raise ValueError(f"`max_unpacked_gib` is {gib}: expected a number above 0")
        default = max(BYTES_PER_GIB, MAX_COMPRESSION_RATIO * n_packed)
        self.limit = default if gib is None else int(gib * BYTES_PER_GIB)
        self.n_left = self.limit

    def take(self, n_bytes: int, name: str) -> None:
        """Count unpacked bytes of a file.

        Raises:
            ValueError: the limit is exceeded.
        """
        self.n_left -= n_bytes
        if self.n_left < 0:
            limit = f"{self.limit / BYTES_PER_GIB:.3g} GiB"
            way_out = "if this is intended, give a larger `max_unpacked_gib`"
            raise ValueError(f"{name}: it unpacks to more than {limit}: {way_out}")


class _CountedGzip(io.RawIOBase):
    """The unpacked content of a gzip file; its bytes are taken from an allowance."""

    def __init__(self, path: Path, allowance: Allowance) -> None:
        packed = cast(io.BufferedReader, path.open("rb"))
        self.is_gzip = packed.peek(2).startswith(b"\x1f\x8b")
        self.file, self.name, self.allowance = gzip.GzipFile(fileobj=packed), str(path), allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            n = self.file.readinto(buffer)
        except gzip.BadGzipFile as error:
            if not self.is_gzip:
                raise
            raise OSError("bytes after the compressed data are not gzip: the file is damaged") from error
        self.allowance.take(n, self.name)
        return n


def has_gzip_name(path: Path) -> bool:
    """Whether the name ends in .gz."""
    return path.name.lower().endswith(".gz")


def open_unpacked(path: Path, allowance: Allowance) -> BinaryIO:
    """Open a file; it is decompressed if its name ends in .gz.

    Raises:
        OSError: it cannot be read, or is compressed in another way.
    """
    if has_gzip_name(path):
        return io.BufferedReader(_CountedGzip(path, allowance), BYTES_AT_ONCE)
    file = cast(io.BufferedReader, path.open("rb"))
    beginning = file.peek(8)[:8]
    advice = next((text for mark, text in OTHER_CONTENT.items() if beginning.startswith(mark)), None)
    if advice is not None:
        raise OSError(advice)
    return file


def read_unpacked(path: Path, allowance: Allowance, is_text: bool = False) -> bytes:
    """The whole content of a file.

    Raises:
        ValueError: `is_text`, and no line of a compressed file ends in its first `MAX_RECORD_BYTES`.
    """
    with open_unpacked(path, allowance) as file:
        if not has_gzip_name(path):
            return file.read()
        content = io.BytesIO()  # its value is returned without a copy
        while block := file.read(16 * BYTES_AT_ONCE):
            content.write(block)
            if is_text and content.tell() == MAX_RECORD_BYTES and not _has_line_end(content.getvalue()):
                limit = f"{MAX_RECORD_BYTES >> 20} MiB"
                raise ValueError(f"{path}: no line of text ends in its first {limit}: it is not a table")
        return content.getvalue()


def _has_line_end(data: bytes) -> bool:
    content = data.lstrip(b"\r\n \t\0")
    return b"\n" in content or b"\r" in content


def read_text(path: Path, allowance: Allowance, encoding: str | None) -> bytes:
    r"""The text of a file as UTF-8; its lines end in \n or \r\n.

    Args:
        path: the file.
        allowance: limits the unpacked size.
        encoding: of text that is not UTF-8 and has no byte order mark.

    Raises:
        ValueError: it is not text of that encoding, or is too large.
    """
    data = to_utf8(read_unpacked(path, allowance, is_text=True), str(path), encoding)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        way_out = "if it is UTF-16, give `encoding` utf-16-le"
        raise ValueError(f"{path}, line {line}: not UTF-8 text, it holds a zero byte: {way_out}")
    has_returns = b"\r" in data
    if has_returns and b"\n" not in data:  # line ends of old Macs
        return data.replace(b"\r", b"\n")
    for line_end in (b"\n", b"\r\n") if has_returns else (b"\n",):
        offset = data.find(line_end * MAX_BLANK_LINES)
        if offset >= 0:
            raise ValueError(_blank_lines_error(str(path), data.count(b"\n", 0, offset) + 1))
    return data


def to_utf8(data: bytes, name: str, encoding: str | None) -> bytes:
    """Text as UTF-8.

    Bytes that are UTF-8 already are returned as they are. So are all bytes without a byte order mark
    if no encoding is given.

    Raises:
        ValueError: the encoding does not exist, or the text is not of it.
    """
    if encoding is not None:
        _check_encoding(encoding)
    mark_encoding = encoding_of_mark(data)
    if mark_encoding is None and (encoding is None or _is_utf8(data)):
        return data
    try:
        return data.decode(mark_encoding or encoding or "").encode()
    except UnicodeError as error:
        line = data.count(b"\n", 0, error.start) + 1 if isinstance(error, UnicodeDecodeError) else 1
        expected = f"neither UTF-8 nor {mark_encoding or encoding} text"
        raise ValueError(f"{name}, line {line}: {expected}: give its `encoding`") from error


def _check_encoding(encoding: str) -> None:
    try:
        b"a".decode(encoding, "ignore")
    except (LookupError, UnicodeError) as error:
        message = f"`encoding` {encoding}: there is no such encoding of text: give latin-1, cp1252, ..."
        raise ValueError(message) from error


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data  # UTF-16 has zero bytes


def encoding_of_mark(beginning: bytes) -> str | None:
    """The encoding named by a byte order mark; None without a mark, and for UTF-8."""
    marks = BYTE_ORDER_MARKS.items()
    return next((encoding for mark, encoding in marks if beginning.startswith(mark)), None)


def nonblank_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1; leading white space may be left out.

    Raises:
        ValueError: a line is longer than a record, or more than `MAX_BLANK_LINES` in a row are blank.
    """
    number, n_blank = 1, 0
    for chunk in _chunks_of_lines(file, name):
        if n_blank == 0 and chunk[:1].strip() and not _BLANK_LINE.search(chunk):
            lines = chunk.split(b"\n")
            yield from enumerate(lines[: len(lines) - (not lines[-1])], number)
            number += len(lines) - 1
            continue
        end = 0
        for line in _NONBLANK_LINE.finditer(chunk):
            start = line.start()
            if start != end or n_blank:
                n_skipped = chunk.count(b"\n", end, start)
                n_blank, number = n_blank + n_skipped, number + n_skipped
                if n_blank > MAX_BLANK_LINES:
                    raise ValueError(_blank_lines_error(name, number - n_blank))
            yield number, line.group()
            n_blank, number, end = 0, number + 1, line.end()
        n_skipped = chunk.count(b"\n", end)
        n_blank, number = n_blank + n_skipped, number + n_skipped
        if n_blank > MAX_BLANK_LINES:
            raise ValueError(_blank_lines_error(name, number - n_blank))


def _chunks_of_lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The content in chunks that end at line ends."""
    pending: list[bytes] = []
    while block := file.read(BYTES_AT_ONCE):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*pending, block[:end]])
            pending = [block[end:]]
            continue
        pending.append(block)
        is_long = len(pending) > MAX_RECORD_BYTES // BYTES_AT_ONCE
        if is_long and not b"".join(pending[:2]).lstrip().startswith((b"{", b"[")):
            limit = f"{MAX_RECORD_BYTES >> 20} MiB"
            raise ValueError(f"{name}: a line of more than {limit}: it holds no JSON")
    yield b"".join(pending)


def _blank_lines_error(name: str, line: int) -> str:
    return f"{name}, line {line}: more than {MAX_BLANK_LINES:,} blank lines follow: it is not a table"
