"""Objects on their way into the store.

A `Batch` takes objects in; `seal` makes their bytes durable and `record` enters them into the index, inside
the transaction that first refers to them. The order of these steps, and what a crash between two of them
leaves, is described in ``docs/storage.md``.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

from blake3 import blake3

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.ids import new_id
from kaos_backend.engine.store.bytes.damage import erase
from kaos_backend.engine.store.bytes.disk import read_at
from kaos_backend.engine.store.bytes.objects import (
    EMPTY_HASH,
    INLINE_PACK,
    LOOSE_BYTES,
    PACK_HEAD,
    PACK_MAGIC,
    READ_BYTES,
    ObjectStore,
)

INLINE_BYTES = 64 << 10
"""A batch whose small objects come to no more than this (bytes) keeps them in SQLite and opens no pack."""
_FLUSH_BYTES = 4 << 20
_FLUSH_COUNT = 1000
_ROWS_AT_ONCE = 4000
# From this size on a file is written by a thread beside the one that receives it, with so many pieces under
# way.
_BACKGROUND_BYTES = 8 << 20
_PENDING_WRITES = 4
# The disk is asked to begin with this many bytes at a time while the next ones arrive.
_WRITE_BACK_BYTES = 32 << 20

Known = Callable[[list[bytes]], set[bytes]]
"""Which of the given hashes the store has already, whole as far as it knows."""
Chunk = bytes | bytearray | memoryview


class Batch:
    """Objects on their way in. Not for use by several threads at once.

    add*/write → `seal` (bytes durable) → `record` in the transaction that refers to them. `abort` at any time
    before `record` leaves nothing but, at most, loose files that the next sweep removes.
    """

    def __init__(self, store: ObjectStore, known: Known) -> None:
        self.store = store
        self.disk = store.disk
        self._known = known
        self._buffer: dict[bytes, bytes] = {}
        self._buffered = 0
        self._inline: dict[bytes, bytes] = {}
        self._inlined = 0
        self._pack: int | None = None
        self._pack_name = ""
        self._pack_end = 0
        self._unsynced = False
        # Where in the pack each is, see `_place`: there may be a million, and pairs take four times as much.
        self._packed: dict[bytes, int] = {}
        self._large: dict[bytes, tuple[int, Path | None]] = {}
        self._healed: set[bytes] = set()
        self._arriving: list[bytes] = []

    def add(self, data: Chunk) -> bytes:
        """Take a whole object in (the caller may pass a view; it is copied); return its hash."""
        hash_ = blake3(data).digest()
        if hash_ == EMPTY_HASH or hash_ in self._buffer or self.brings(hash_):
            return hash_
        if len(data) >= LOOSE_BYTES:
            with ObjectWriter(self) as writer:
                writer.write(data)
                writer.finish()
            return hash_
        self._buffer[hash_] = bytes(data)
        self._buffered += len(data)
        if self._buffered >= _FLUSH_BYTES or len(self._buffer) >= _FLUSH_COUNT:
            self._flush()
        return hash_

    def add_small(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Take objects below `LOOSE_BYTES` in; return their hashes."""
        hashes = [blake3(data).digest() for data in pieces]
        fresh = dict(zip(hashes, pieces, strict=True))
        fresh.pop(EMPTY_HASH, None)
        for there in (self._buffer, self._packed, self._inline):
            for hash_ in fresh.keys() & there.keys():
                del fresh[hash_]
        self._buffer |= fresh
        self._buffered += sum(map(len, fresh.values()))
        if self._buffered >= _FLUSH_BYTES or len(self._buffer) >= _FLUSH_COUNT:
            self._flush()
        return hashes

    def known(self, hashes: list[bytes]) -> set[bytes]:
        """Which of these the store has already, so that their bytes need not come."""
        return self._known(hashes) | {EMPTY_HASH}

    def brings(self, hash_: bytes) -> bool:
        """Whether an object's bytes are new with this batch, as far as it has been sealed."""
        return hash_ in self._packed or hash_ in self._large or hash_ in self._inline

    def writer(self) -> ObjectWriter:
        return ObjectWriter(self)

    def read(self, hash_: bytes) -> Iterator[bytes] | None:
        """The bytes of an object that this batch holds; None when it does not (the index may)."""
        data = self._buffer.get(hash_, self._inline.get(hash_))
        if data is not None:
            return iter((data,))
        if hash_ in self._large:
            _, tmp = self._large[hash_]
            return _pieces_of(tmp or self.store.loose_path(hash_))
        if hash_ in self._packed and self._pack is not None:
            offset, length = _place(self._packed[hash_])
            data = read_at(self._pack, length, offset)
            if blake3(data).digest() != hash_:
                raise DataLoss(hash_, f"has changed in packs/{self._pack_name}, which is being written")
            return iter((data,))
        return None

    def seal(self) -> None:
        """Make every byte taken in so far durable. May be called again after more was added."""
        disk = self.disk
        if self._buffer and self._pack is None and self._inlined + self._buffered <= INLINE_BYTES:
            self._inline.update(self._new(self._buffer))
            self._inlined += self._buffered
            self._buffer, self._buffered = {}, 0
        elif self._buffer:
            self._flush()
        if self._pack is not None and self._unsynced:
            disk.sync(self._pack)
            disk.sync_directory(self.store.packs)
            self._unsynced = False
        pending = [(hash_, tmp) for hash_, (_, tmp) in self._large.items() if tmp is not None]
        for _, tmp in pending:
            disk.sync_path(tmp)
        arriving = [hash_ for hash_, _ in pending]
        self.store.arriving(arriving)
        self._arriving += arriving
        directories = set()
        for hash_, tmp in pending:
            final = self.store.loose_path(hash_)
            if not final.parent.is_dir():
                disk.make_directory(final.parent)
                directories.add(self.store.loose)
            disk.rename(tmp, final)
            self._large[hash_] = (self._large[hash_][0], None)
            directories.add(final.parent)
        for directory in sorted(directories):
            disk.sync_directory(directory)

    def record(self, db: sqlite3.Connection) -> None:
        """Enter everything sealed into the index."""
        # What was damaged is whole where it is now.
        self._healed |= self.store.damage.among(chain(self._packed, self._large, self._inline))
        if self._healed:
            gone = [(hash_,) for hash_ in self._healed]
            db.executemany("DELETE FROM objects WHERE hash=?", gone)
            db.executemany("DELETE FROM small_objects WHERE hash=?", gone)
            erase(db, self._healed)
        if self._packed:
            pack = db.execute("INSERT INTO packs (name) VALUES (?)", (self._pack_name,)).lastrowid
            _enter(db, pack, self._packed)
        rows = chain(
            ((hash_, None, 0, size) for hash_, (size, _) in self._large.items()),
            ((hash_, INLINE_PACK, 0, len(data)) for hash_, data in self._inline.items()),
        )
        db.executemany("INSERT OR IGNORE INTO objects (hash, pack, offset, length) VALUES (?,?,?,?)", rows)
        db.executemany("INSERT OR IGNORE INTO small_objects (hash, data) VALUES (?,?)", self._inline.items())

    def recorded(self) -> None:
        """The transaction is committed."""
        self.store.damage.healed(self._healed)
        self._arrived()
        self.close()

    def close(self) -> None:
        """Let go of the pack's descriptor."""
        if self._pack is not None:
            os.close(self._pack)
            self._pack = None

    def abort(self) -> None:
        """Forget everything unrecorded. Loose files, which others may share by now, wait for the sweep."""
        if self._pack is not None:
            self.close()
            with suppress(OSError):
                (self.store.packs / self._pack_name).unlink()
        for _, tmp in self._large.values():
            if tmp is not None:
                with suppress(OSError):
                    tmp.unlink()
        self._buffer, self._inline, self._packed, self._large = {}, {}, {}, {}
        self._arrived()

    def _arrived(self) -> None:
        self.store.arrived(self._arriving)
        self._arriving = []

    def _new(self, objects: dict[bytes, bytes]) -> dict[bytes, bytes]:
        known = self._known(list(objects))
        return {hash_: data for hash_, data in objects.items() if hash_ not in known} if known else objects

    def _flush(self) -> None:
        """Append the buffered objects, without those the store already has, to this batch's pack."""
        objects = self._inline | self._new(self._buffer)
        if objects and self._pack is None:
            self._pack_name = f"{new_id()}.pack"
            self._pack = self.disk.create(self.store.packs / self._pack_name)
            self.disk.write(self._pack, PACK_MAGIC)
            self._pack_end = len(PACK_MAGIC)
        if objects and self._pack is not None:
            parts: list[bytes] = []
            end = self._pack_end
            for hash_, data in objects.items():
                length = len(data)
                parts += (PACK_HEAD.pack(hash_, length), data)
                self._packed[hash_] = (end + PACK_HEAD.size) * LOOSE_BYTES + length
                end += PACK_HEAD.size + length
            self.disk.write(self._pack, b"".join(parts))
            self.disk.start_writing_back(self._pack, self._pack_end, end - self._pack_end)
            self._pack_end = end
            self._unsynced = True
        self._inline, self._buffer, self._buffered = {}, {}, 0

    def take_large(self, hash_: bytes, size: int, tmp: Path) -> None:
        """A finished writer's file. It is dropped again when the store has the object already."""
        try:
            known = hash_ in self._large or bool(self._known([hash_]))
        except BaseException:
            tmp.unlink()
            raise
        if known:
            tmp.unlink()
        else:
            self._large[hash_] = (size, tmp)


class ObjectWriter:
    """One object whose bytes come in pieces: below `LOOSE_BYTES` in memory, above in a file.

    Pieces of a file are written by a thread of their own while the caller hashes and receives the next ones,
    so they must not change after they were handed over. Use it as a context manager, or call `abort` when it
    is not finished after all: its file and descriptor are gone afterwards.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._chunks: list[bytes] = []
        self.size = 0
        self._fd: int | None = None
        self._tmp: Path | None = None
        self._hasher: blake3 | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._written = 0
        self._given_to_disk = 0

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, data: Chunk) -> None:
        """Append `data` (copied when it stays in memory)."""
        if not data:
            return
        self.size += len(data)
        if self._fd is not None:
            self._append(data)
        elif self.size < LOOSE_BYTES:
            self._chunks.append(bytes(data))
        else:
            self._tmp = self._batch.store.tmp / new_id()
            self._fd = self._batch.disk.create(self._tmp)
            self._hasher = blake3()
            for chunk in (*self._chunks, data):
                self._append(chunk)
            self._chunks = []

    def _append(self, data: Chunk) -> None:
        assert self._fd is not None
        assert self._hasher is not None
        if self.size < _BACKGROUND_BYTES and self._thread is None:
            self._put(self._fd, data)
        else:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="object")
            if len(self._pending) >= _PENDING_WRITES:
                self._pending.popleft().result()
            self._pending.append(self._thread.submit(self._put, self._fd, data))
        self._hasher.update(data)

    def _put(self, fd: int, data: Chunk) -> None:
        disk = self._batch.disk
        disk.write(fd, data)
        self._written += len(data)
        fresh = self._written - self._given_to_disk
        if fresh >= _WRITE_BACK_BYTES:
            disk.start_writing_back(fd, self._given_to_disk, fresh)
            self._given_to_disk = self._written

    def finish(self) -> tuple[bytes, int]:
        """Hand the object to the batch; return (hash, size in bytes)."""
        if self._fd is None or self._hasher is None or self._tmp is None:
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            return self._batch.add(data), self.size
        try:
            while self._pending:
                self._pending.popleft().result()
        except BaseException:
            self.abort()
            raise
        self._close(self._fd)
        # From here on the file is the batch's.
        hash_ = self._hasher.digest()
        self._batch.take_large(hash_, self.size, self._tmp)
        return hash_, self.size

    def abort(self) -> None:
        """Let go of everything; after `finish` a no-op."""
        if self._fd is not None and self._tmp is not None:
            self._close(self._fd)
            with suppress(OSError):
                self._tmp.unlink()
        self._chunks = []

    def _close(self, fd: int) -> None:
        """Close the file, once nothing writes to it any more."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._pending.clear()
        os.close(fd)
        self._fd = None


def _enter(db: sqlite3.Connection, pack: int | None, packed: Mapping[bytes, int]) -> None:
    """Rows of objects in a pack, where they are as of `_place`."""
    # There may be a million: in order, or each would have its page written anew; and some thousands in one
    # statement, which takes half of the time of one for each.
    hashes = sorted(packed)
    for start in range(0, len(hashes), _ROWS_AT_ONCE):
        part = hashes[start : start + _ROWS_AT_ONCE]
        db.execute(
            "INSERT OR IGNORE INTO objects (hash, pack, offset, length)"
            " SELECT substr(?, key * ? + 1, ?), ?, value / ?, value % ? FROM json_each(?)",
            (
                b"".join(part),
                *(len(EMPTY_HASH), len(EMPTY_HASH)),
                pack,
                *(LOOSE_BYTES, LOOSE_BYTES),
                f"[{','.join([str(packed[hash_]) for hash_ in part])}]",
            ),
        )


def _place(at: int) -> tuple[int, int]:
    """Offset and length of an object in a pack, where none has LOOSE_BYTES."""
    return divmod(at, LOOSE_BYTES)


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece
