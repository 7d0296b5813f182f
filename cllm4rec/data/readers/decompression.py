"""Bytes of files: gzip is unpacked up to a limit, text becomes UTF-8."""

import codecs
import gzip
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

GIB = 2**30
RATIO = 100  # a file may unpack to this many times its size, if no limit is given
BLOCK = 2**20
FIRST_RECORD = 2**26  # bytes; the first record of a file ends within them
BLANK_LINES = 2**16  # so many in a row are in no table
ARCHIVES = {  # first bytes -> what the file is, what to do
    b"\x1f\x8b": "it is compressed by gzip: let its name end in .gz",
    b"PK\x03\x04": "it is a zip archive or a spreadsheet: unpack it, or save it as .csv",
    b"BZh": "it is compressed by bzip2: unpack it, or compress it by gzip",
    b"\xfd7zXZ": "it is compressed by xz: unpack it, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd: unpack it, or compress it by gzip",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive: unpack it",
    b"PAR1": "it is Parquet: let its name end in .parquet",
}
_LINE = re.compile(rb"\S[^\n]*\n?")
_BLANK = re.compile(rb"\n\s*\n")
MARKS = {  # the longer mark first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Allowance:
    """The bytes that the compressed files of one table may unpack to.

    Args:
        packed: size of the files in bytes.
        gib: the limit in GiB; None: `RATIO` times the size, and at least 1 GiB.
    """

    def __init__(self, packed: int, gib: float | None) -> None:
        if gib is not None and not (math.isfinite(gib) and gib > 0):
            raise ValueError(f"--max-unpacked-gib {gib}: a number above 0 is needed")
        self.limit = max(GIB, RATIO * packed) if gib is None else int(gib * GIB)
        self.left = self.limit

    def take(self, n_bytes: int, name: str) -> None:
        """Count bytes of a file.

        Raises:
            ValueError: the limit is passed.
        """
        self.left -= n_bytes
        if self.left < 0:
            limit = f"{self.limit / GIB:.3g} GiB"
            raise ValueError(
                f"{name}: it unpacks to more than {limit}: if it is no mistake, give --max-unpacked-gib"
            )


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, counted."""

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
            raise OSError(
                "bytes that are not gzip follow the compressed ones: the file is damaged"
            ) from error
        self.allowance.take(n, self.name)
        return n


def open_unpacked(path: Path, allowance: Allowance) -> BinaryIO:
    """The file's bytes, decompressed where its name ends in .gz.

    Raises:
        OSError: it is compressed in another way, or cannot be read.
    """
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(_Unpacked(path, allowance), BLOCK)
    file = cast(io.BufferedReader, path.open("rb"))
    first = file.peek(8)[:8]
    way = next((way for mark, way in ARCHIVES.items() if first.startswith(mark)), None)
    if way is not None:
        raise OSError(way)
    return file


def unpacked(path: Path, allowance: Allowance, text: bool = False) -> bytes:
    """The whole content of a file; text whose first line never seems to end is refused early."""
    with open_unpacked(path, allowance) as file:
        if not path.name.lower().endswith(".gz"):
            return file.read()
        content = io.BytesIO()  # its value is given without a copy
        while block := file.read(16 * BLOCK):
            content.write(block)
            if text and content.tell() == FIRST_RECORD and not _line_ends(content.getvalue()):
                raise ValueError(
                    f"{path}: no line of text ends in its first {FIRST_RECORD >> 20} MiB: it is not a table"
                )
        return content.getvalue()


def _line_ends(data: bytes) -> bool:
    content = data.lstrip(b"\r\n \t\0")
    return b"\n" in content or b"\r" in content


def text_of(path: Path, allowance: Allowance, encoding: str | None) -> bytes:
    """The text of a file as UTF-8; its lines end in \\n or \\r\\n.

    Args:
        path: the file.
        allowance: what it may unpack to.
        encoding: of text that is neither UTF-8 nor marked at its beginning.

    Raises:
        ValueError: it is not text of that encoding.
    """
    data = recoded(unpacked(path, allowance, text=True), str(path), encoding)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ValueError(
            f"{path}, line {line}: a zero byte: not UTF-8 text (if it is UTF-16, give --encoding utf-16-le)"
        )
    returns = b"\r" in data
    if returns and b"\n" not in data:  # as on old Macs
        return data.replace(b"\r", b"\n")
    for end in (b"\n", b"\r\n") if returns else (b"\n",):
        position = data.find(end * BLANK_LINES)
        if position >= 0:
            raise ValueError(_blank_lines(str(path), data.count(b"\n", 0, position) + 1))
    return data


def recoded(data: bytes, name: str, encoding: str | None) -> bytes:
    """Text as UTF-8. Text that is so already is given back as it is, and without an encoding or a mark any.

    Raises:
        ValueError: there is no such encoding, or the text is not of it.
    """
    if encoding is not None:
        _check_encoding(encoding)
    marked = marked_encoding(data)
    if marked is None and (encoding is None or _is_utf8(data)):
        return data
    try:
        return data.decode(marked or encoding or "").encode()
    except UnicodeError as error:
        line = data.count(b"\n", 0, error.start) + 1 if isinstance(error, UnicodeDecodeError) else 1
        raise ValueError(
            f"{name}, line {line}: neither UTF-8 nor {marked or encoding} text: give its --encoding"
        ) from error


def _check_encoding(encoding: str) -> None:
    try:
        b"a".decode(encoding, "ignore")
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"--encoding {encoding}: there is no such encoding of text") from error


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data  # as in UTF-16


def marked_encoding(beginning: bytes) -> str | None:
    """The encoding that a byte order mark says; None without one, and for UTF-8."""
    return next((encoding for mark, encoding in MARKS.items() if beginning.startswith(mark)), None)


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1; spaces at its ends may be left out.

    Raises:
        ValueError: a line is too long for a record, or too many in a row are blank.
    """
    number, n_blank = 1, 0
    for chunk in _whole_lines(file, name):
        if n_blank == 0 and chunk[:1].strip() and not _BLANK.search(chunk):
            lines = chunk.split(b"\n")
            yield from enumerate(lines[: len(lines) - (not lines[-1])], number)
            number += len(lines) - 1
            continue
        end = 0
        for line in _LINE.finditer(chunk):
            start = line.start()
            if start != end or n_blank:
                skipped = chunk.count(b"\n", end, start)
                n_blank, number = n_blank + skipped, number + skipped
                if n_blank > BLANK_LINES:
                    raise ValueError(_blank_lines(name, number - n_blank))
            yield number, line.group()
            n_blank, number, end = 0, number + 1, line.end()
        skipped = chunk.count(b"\n", end)
        n_blank, number = n_blank + skipped, number + skipped
        if n_blank > BLANK_LINES:
            raise ValueError(_blank_lines(name, number - n_blank))


def _whole_lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The content in pieces that each end where a line ends."""
    parts: list[bytes] = []
    while block := file.read(BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*parts, block[:end]])
            parts = [block[end:]]
        else:
            parts.append(block)
            if len(parts) > FIRST_RECORD // BLOCK and not b"".join(parts[:2]).lstrip().startswith(
                (b"{", b"[")
            ):
                raise ValueError(f"{name}: a line of more than {FIRST_RECORD >> 20} MiB: it holds no JSON")
    yield b"".join(parts)


def _blank_lines(name: str, line: int) -> str:
    return f"{name}, line {line}: more than {BLANK_LINES:,} blank lines follow: it is not a table"
