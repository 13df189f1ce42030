"""The few messages that are many or large, by hand.

Field numbers are those of `pfs_v2`: ModifyFileRequest{set_commit 1, add_file 2, delete_file 3, copy_file 4},
AddFile{path 1, datum 2, raw 3 (BytesValue), url 4}, DeleteFile{path 1, datum 2},
FileInfo{file 1, file_type 2, committed 3, size_bytes 4, hash 5}, File{commit 1, path 2, datum 3}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.model import FileEntry
from kaos_formats import protobuf

SET_COMMIT, ADD_FILE, DELETE_FILE, COPY_FILE = 1, 2, 3, 4


class AddFile(NamedTuple):
    """`raw` is None when the message has no raw source, `url` (an encoded URL source) likewise."""

    path: str
    datum: str
    raw: memoryview | None
    url: bytes | None


def fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of every length-delimited field of a message.

    Raises:
        InvalidArgument: the message is cut short or no protobuf at all.
    """
    try:
        yield from protobuf.fields(data)
    except ValueError as error:
        raise InvalidArgument(f"validate recv: {error}") from error


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


def bytes_value(data: bytes) -> bytes:
    """An encoded `BytesValue`."""
    return b"\x0a" + protobuf.varint(len(data)) + data


def microseconds(us: int) -> bytes:
    """An encoded `Timestamp` or `Duration`, not negative: both are {seconds 1, nanos 2}."""
    seconds, rest = divmod(us, 1_000_000)
    nanos = b"\x10" + protobuf.varint(rest * 1000) if rest else b""
    return (b"\x08" + protobuf.varint(seconds) if seconds else b"") + nanos


def file_info_encoder(commit: bytes, committed_us: int | None) -> Callable[[FileEntry], bytes]:
    """A function that encodes `FileInfo`s of one commit (given as an encoded `Commit`)."""
    committed = b"" if committed_us is None else protobuf.field(3, microseconds(committed_us))

    def encode(entry: FileEntry) -> bytes:
        is_dir = entry.kind == "dir"
        datum = "" if is_dir else entry.tag
        return file_info(commit, entry.path, datum, is_dir, committed, entry.size_bytes, entry.hash)

    return encode


def file_info(
    commit: bytes, path: str, datum: str, is_dir: bool, committed: bytes, size_bytes: int, hash: bytes
) -> bytes:
    """An encoded `FileInfo`; `commit` and `committed` (the whole field) are encoded already."""
    file = protobuf.field(1, commit) + protobuf.text(2, path) + protobuf.text(3, datum)
    return b"".join(
        (
            protobuf.field(1, file),
            b"\x10\x02" if is_dir else b"\x10\x01",
            committed,
            protobuf.number(4, size_bytes),
            protobuf.field(5, hash),
        )
    )
