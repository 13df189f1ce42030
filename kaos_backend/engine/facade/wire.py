"""The few protobuf messages that are many or large, by hand: betterproto is pure Python and would dominate.

Field numbers are those of `pfs_v2`: ModifyFileRequest{set_commit 1, add_file 2, delete_file 3, copy_file 4},
AddFile{path 1, datum 2, raw 3 (BytesValue), url 4}, DeleteFile{path 1, datum 2},
FileInfo{file 1, file_type 2, committed 3, size_bytes 4, hash 5}, File{commit 1, path 2, datum 3}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.model import FileEntry

SET_COMMIT, ADD_FILE, DELETE_FILE, COPY_FILE = 1, 2, 3, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FILE, _DIR = 1, 2


class AddFile(NamedTuple):
    """`raw` is None when the message has no raw source, `url` (an encoded URL source) likewise."""

    path: str
    datum: str
    raw: memoryview | None
    url: bytes | None


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, position after it)."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise IndexError("a varint is too long")


def fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of every length-delimited field of a message; other fields are passed over.

    Raises:
        InvalidArgument: the message is cut short or no protobuf at all.
    """
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == _BYTES:
                length, at = _varint(data, at)
                if at + length > end:
                    raise IndexError("a field is cut short")
                yield tag >> 3, data[at : at + length]
                at += length
            elif kind == _VARINT:
                _, at = _varint(data, at)
            elif kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            else:
                raise IndexError(f"wire type {kind}")
    except IndexError as error:
        raise InvalidArgument(f"validate recv: the message cannot be decoded ({error})") from error


def modify_arm(message: bytes) -> tuple[int, memoryview]:
    """(number, content) of the arm that a ModifyFileRequest sets; the last one wins, as in every oneof."""
    found = (0, memoryview(b""))
    for number, content in fields(memoryview(message)):
        if SET_COMMIT <= number <= COPY_FILE:
            found = (number, content)
    if found[0] == 0:
        raise InvalidArgument("validate recv: body: value is required")
    return found


def text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"validate recv: a text is not UTF-8 ({error})") from error


def add_file(data: memoryview) -> AddFile:
    path = datum = ""
    raw: memoryview | None = None
    url: bytes | None = None
    for number, content in fields(data):
        if number == 1:
            path = text(content)
        elif number == 2:
            datum = text(content)
        elif number == 3:
            raw, url = memoryview(b""), None
            for inner, value in fields(content):
                if inner == 1:
                    raw = value
        elif number == 4:
            raw, url = None, bytes(content)
    return AddFile(path, datum, raw, url)


def delete_file(data: memoryview) -> tuple[str, str]:
    """(path, datum)."""
    path = datum = ""
    for number, content in fields(data):
        if number == 1:
            path = text(content)
        elif number == 2:
            datum = text(content)
    return path, datum


def varint(value: int) -> bytes:
    """An unsigned number, encoded."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def bytes_value(data: bytes) -> bytes:
    """An encoded `BytesValue`."""
    return b"\x0a" + varint(len(data)) + data


def timestamp(us: int) -> bytes:
    """An encoded `Timestamp` of microseconds since the epoch."""
    seconds, rest = divmod(us, 1_000_000)
    nanos = b"\x10" + varint(rest * 1000) if rest else b""
    return (b"\x08" + varint(seconds) if seconds else b"") + nanos


def file_info_encoder(commit: bytes, committed_us: int | None) -> Callable[[FileEntry], bytes]:
    """A function that encodes `FileInfo`s of one commit (given as an encoded `Commit`)."""
    head = field(1, commit)
    committed = b"" if committed_us is None else field(3, timestamp(committed_us))

    def encode(entry: FileEntry) -> bytes:
        path = entry.path.encode()
        file = head + b"\x12" + varint(len(path)) + path
        is_dir = entry.kind == "dir"
        if not is_dir and entry.tag:
            file += field(3, entry.tag.encode())
        size = b"\x20" + varint(entry.size_bytes) if entry.size_bytes else b""
        return b"".join(
            (
                b"\x0a",
                varint(len(file)),
                file,
                b"\x10\x02" if is_dir else b"\x10\x01",
                committed,
                size,
                b"\x2a\x20",
                entry.hash,
            )
        )

    return encode
