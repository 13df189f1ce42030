"""Tar streams: written in few instructions, read forward only and never trusted.

The standard library takes 60 µs for a header, which for 20,000 files is longer than reading, hashing and
compressing them; what plain ustar cannot say (long or non-ASCII names, huge files) is left to it. Its stream
mode reads an extended header of any size into memory (a bomb of a few hundred bytes), and copies every byte
of a member several times. This reader holds one header at a time, hands out the payload as the decompressor
made it, and knows just what POSIX.1-1988 ustar, pax and GNU long names need.
Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

BLOCK = 512
MAX_EXTENDED_HEADER = 64 * 1024
CHUNK = 4 * 1024 * 1024

Kind = Literal["file", "dir", "symlink", "hardlink", "device", "fifo", "other"]

_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink",
    b"3": "device", b"4": "device", b"5": "dir", b"6": "fifo",
}  # fmt: skip
_ZERO = bytes(BLOCK)
_NAME_BYTES = 100
_PLAIN_SIZE = 8**11
# A keyword of our own (POSIX: VENDOR.keyword).
_OFFSET = "KAOS.offset"


class TarError(Exception):
    """The stream is not a tar archive, breaks off, or uses what this reader does not accept."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes:
        """``size`` bytes, fewer only at the end of the stream."""


@dataclass(frozen=True, slots=True)
class Member:
    """One archive member; ``size`` is the payload's in bytes, ``mode`` its permission bits. The payload is
    the rest of a file from ``offset`` on.
    """

    name: str
    size: int
    kind: Kind
    mode: int
    offset: int = 0


class TarReader:
    """Iterates over the members of a stream; the payload of one must be read (or is skipped) before the
    next.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        extended: dict[str, str] = {}
        while True:
            self._skip_payload()
            header = self._exactly(BLOCK)
            if header == _ZERO:
                return
            _check_sum(header)
            kind = header[156:157]
            size = _number(header[124:136])
            if kind in (b"x", b"g", b"L", b"K"):
                text = self._extended_header(size)
                if kind == b"x":
                    extended.update(_pax(text))
                elif kind == b"L":
                    extended["path"] = _text(text)
                continue
            name = extended.get("path") or _name(header)
            if "size" in extended:
                size = _decimal(extended["size"])
            offset = _decimal(extended[_OFFSET]) if _OFFSET in extended else 0
            extended = {}
            if kind not in (b"0", b"\0", b"7"):
                size = 0 if kind in (b"1", b"2", b"3", b"4", b"5", b"6") else size
            self._left = size
            self._padding = -size % BLOCK
            yield Member(name, size, _KINDS.get(kind, "other"), _number(header[100:108]) & 0o7777, offset)

    def payload(self, at_most: int = CHUNK) -> Iterator[bytes]:
        """The current member's content in chunks of at most 4 MiB, or so many bytes."""
        while self._left:
            chunk = self._exactly(min(self._left, at_most))
            self._left -= len(chunk)
            yield chunk

    def _skip_payload(self) -> None:
        for _ in self.payload():
            pass
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _extended_header(self, size: int) -> bytes:
        if size > MAX_EXTENDED_HEADER:
            raise TarError(f"an extended header of {size} bytes")
        return self._exactly(size + -size % BLOCK)[:size]

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise TarError("the archive breaks off")
        return data


def header(
    name: str, size: int, mode: int, mtime: int = 0, *, is_dir: bool = False, offset: int = 0
) -> bytes:
    """The header blocks of a regular file or a folder, of user and group 0: equal files give equal bytes.

    512 bytes of ustar, or pax format where that does not fit. ``mtime`` in Unix seconds. ``size`` bytes
    follow, those of a file from ``offset`` on.
    """
    if offset or len(name) > _NAME_BYTES or size >= _PLAIN_SIZE or not name.isascii():
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, mode, mtime
        info.type = tarfile.DIRTYPE if is_dir else tarfile.REGTYPE
        if offset:
            info.pax_headers = {_OFFSET: str(offset)}
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8")
    front, middle, back, fixed_sum = _frame(mode, mtime, is_dir)
    name_bytes, size_text = name.encode("ascii"), b"%011o\0" % size
    checksum = b"%06o\0 " % (sum(name_bytes) + sum(size_text) + fixed_sum)
    return b"".join((name_bytes.ljust(_NAME_BYTES, b"\0"), front, size_text, middle, checksum, back))


@lru_cache(maxsize=64)
def _frame(mode: int, mtime: int, is_dir: bool) -> tuple[bytes, bytes, bytes, int]:
    """What headers of one kind have in common: around name, size and checksum, and the sum of these bytes."""
    front = b"%07o\0" % mode + b"0000000\0" * 2
    middle = b"%011o\0" % mtime
    back = b"5" if is_dir else b"0"
    back += bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    return front, middle, back, sum(front) + sum(middle) + sum(back) + 8 * ord(" ")


def padding(size: int) -> bytes:
    """What follows a payload of ``size`` bytes."""
    return bytes(-size % BLOCK)


END = bytes(2 * BLOCK)


def _check_sum(header: bytes) -> None:
    claimed = _number(header[148:156])
    actual = sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")
    if claimed != actual:
        raise TarError("not a tar archive: a header's checksum is wrong")


def _number(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    try:
        value = int(text, 8)
    except ValueError as error:
        raise TarError("not a tar archive: a header's number is broken") from error
    if value < 0:
        raise TarError("not a tar archive: a header's number is negative")
    return value


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise TarError("a number of a pax header is broken")
    return int(text)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _pax(data: bytes) -> dict[str, str]:
    """The records ``<length> <keyword>=<value>\\n``; the length counts the whole record."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 20)
        digits = data[position:blank] if blank > 0 else b""
        if not digits.isdigit():
            raise TarError("a pax header is broken")
        end = position + int(digits)
        keyword, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if end > len(data) or data[end - 1 : end] != b"\n" or not equals or end <= blank:
            raise TarError("a pax header is broken")
        records[keyword.decode("utf-8", "replace")] = value.decode("utf-8", "backslashreplace")
        position = end
    return records
