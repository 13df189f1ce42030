"""A tar of tree entries, as GetFileTAR streams it: absolute names, mode 0, directories included."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator

from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, Location, locate
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.store import Store

_BLOCK = 512
_PLAIN_NAME = 100
_PLAIN_SIZE = 8**11
_BATCH = 500
_MESSAGE_BYTES = 1 << 20
_SPACES = b" " * 8
# name 100, mode 8, uid 8, gid 8, size 12, mtime 12, checksum 8, type 1, link 100, magic+version 8, rest.
_FRONT = b"0000000\0" * 3
_BACK_FILE = b"0" + b"\0" * 100 + b"ustar\x0000" + b"\0" * 64 + b"0000000\0" * 2 + b"\0" * 167
_BACK_DIR = b"5" + _BACK_FILE[1:]


def stream(store: Store, entries: Iterable[FileEntry], mtime_us: int | None) -> Iterator[bytes]:
    """The archive in pieces of about 1 MiB; `mtime_us` is the time of every member."""
    mtime = (mtime_us or 0) // 1_000_000
    buffer: list[bytes] = []
    size = 0
    for piece in _pieces(store, entries, mtime):
        buffer.append(piece)
        size += len(piece)
        if size >= _MESSAGE_BYTES:
            yield b"".join(buffer)
            buffer, size = [], 0
    buffer.append(b"\0" * (2 * _BLOCK))
    yield b"".join(buffer)


def _pieces(store: Store, entries: Iterable[FileEntry], mtime: int) -> Iterator[bytes]:
    batch: list[FileEntry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) >= _BATCH:
            yield from _members(store, batch, mtime)
            batch = []
    yield from _members(store, batch, mtime)


def _members(store: Store, batch: list[FileEntry], mtime: int) -> Iterator[bytes]:
    with store.read() as db:
        places = locate(db, {entry.hash for entry in batch if entry.kind == "file"})
        for entry in batch:
            is_dir = entry.kind == "dir"
            yield header(entry.path, 0 if is_dir else entry.size_bytes, mtime, is_dir)
            if is_dir or entry.hash == EMPTY_HASH:
                continue
            at: Location = places[entry.hash]
            yield from store.objects.open(db, at)
            padding = -entry.size_bytes % _BLOCK
            if padding:
                yield b"\0" * padding


def header(path: str, size: int, mtime: int, is_dir: bool) -> bytes:
    """One member's header: plain ustar where that fits, pax where it does not."""
    name = path.encode()
    if len(name) > _PLAIN_NAME or size >= _PLAIN_SIZE:
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.mode = size, mtime, 0
        info.type = tarfile.DIRTYPE if is_dir else tarfile.REGTYPE
        return info.tobuf(tarfile.PAX_FORMAT)
    front = b"".join((name, b"\0" * (100 - len(name)), _FRONT, b"%011o\0%011o\0" % (size, mtime)))
    back = _BACK_DIR if is_dir else _BACK_FILE
    checksum = sum(front) + sum(_SPACES) + (_BACK_DIR_SUM if is_dir else _BACK_FILE_SUM)
    return b"".join((front, b"%06o\0 " % checksum, back))


_BACK_FILE_SUM = sum(_BACK_FILE)
_BACK_DIR_SUM = sum(_BACK_DIR)
