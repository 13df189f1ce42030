"""A tar of tree entries, as GetFileTAR streams it: absolute names, mode 0, directories included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, locate
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.store import Store
from kaos_formats.tar import END, header, padding

_BATCH = 500
_MESSAGE_BYTES = 1 << 20
_MODE = 0


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
    buffer.append(END)
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
            yield header(entry.path, 0 if is_dir else entry.size_bytes, _MODE, mtime, is_dir=is_dir)
            if is_dir or entry.hash == EMPTY_HASH:
                continue
            try:
                yield from store.objects.open(db, store.objects.require(places, entry.hash))
            except DataLoss as error:
                raise error.at(entry.path) from error
            if rest := padding(entry.size_bytes):
                yield rest
