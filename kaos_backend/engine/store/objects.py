"""Content-addressed objects on disk: packs for small ones, loose files for large ones.

Objects are named by the BLAKE3-256 of their bytes and never change. A `Session` takes objects in; `seal`
makes their bytes durable and `record` enters them into the index, inside the transaction that first refers to
them. The order of these steps, and what a crash between two of them leaves, is described in
``docs/storage.md``.

Pack file: 8 bytes magic, then records of hash (32 bytes), length (unsigned 64-bit little endian), content.
The index (table ``objects``) holds where each content starts; the record heads allow rebuilding it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from kaos_backend.engine.errors import Internal
from kaos_backend.engine.ids import new_id
from kaos_backend.engine.store.disk import Disk

LOOSE_BYTES = 1 << 20
"""Objects of this size (bytes) and above are files of their own."""
INLINE_PACK = -1
INLINE_BYTES = 64 << 10
"""A session whose small objects come to no more than this (bytes) keeps them in SQLite and opens no pack."""
READ_BYTES = 4 << 20
EMPTY_HASH = blake3(b"").digest()

_MAGIC = b"kaospk1\n"
_HEAD = struct.Struct("<32sQ")
_FLUSH_BYTES = 4 << 20
_FLUSH_COUNT = 1000
_SQL_VARIABLES = 500
_OPEN_PACKS = 64

Known = Callable[[list[bytes]], set[bytes]]
Chunk = bytes | bytearray | memoryview


class Location(NamedTuple):
    """Where an object's bytes are. `pack` is a pack's id, None for a loose file, -1 for `small_objects`."""

    hash: bytes
    pack: int | None
    offset: int
    length: int


class ObjectStore:
    """The directories ``packs/``, ``objects/`` and ``tmp/`` of one store."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.disk = disk
        self.packs = root / "packs"
        self.loose = root / "objects"
        self.tmp = root / "tmp"
        for directory in (self.packs, self.loose, self.tmp):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._open_lock = threading.Lock()

    def close(self) -> None:
        with self._open_lock:
            for fd in self._open.values():
                os.close(fd)
            self._open.clear()

    def session(self, known: Known) -> Session:
        """A place to write objects to; `known` tells which hashes the index has already."""
        return Session(self, known)

    def loose_path(self, hash_: bytes) -> Path:
        text = hash_.hex()
        return self.loose / text[:2] / text[2:]

    def open(self, db: sqlite3.Connection, at: Location, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one object from `offset` on, in pieces of at most `READ_BYTES`.

        `db` is not used any more once this returns.
        """
        if at.pack == INLINE_PACK:
            row = db.execute("SELECT data FROM small_objects WHERE hash=?", (at.hash,)).fetchone()
            return iter((row[0][offset:],) if at.length > offset else ())
        if at.pack is None:
            return pieces_of_file(self.loose_path(at.hash), at, offset)
        fd = self._pack_fd(db, at.pack)
        if at.length - offset <= READ_BYTES:
            data = os.pread(fd, at.length - offset, at.offset + offset)
            os.close(fd)
            if len(data) != at.length - offset:
                raise _damaged(at)
            return iter((data,) if data else ())
        return _pieces_of_fd(fd, at, at.offset, offset)

    def small(self, db: sqlite3.Connection, at: Location) -> bytes:
        """All bytes of an object below `LOOSE_BYTES`, in one piece."""
        return b"".join(self.open(db, at))

    def copy_out(self, db: sqlite3.Connection, at: Location, target: int) -> None:
        """Write an object's bytes to an open file, inside the kernel where they are many."""
        if at.pack is None or at.length > READ_BYTES:
            if at.pack is None:
                source, position = _open_loose(self.loose_path(at.hash), at), 0
            else:
                source, position = self._pack_fd(db, at.pack), at.offset
            try:
                end = position + at.length
                while position < end:
                    copied = os.copy_file_range(source, target, end - position, position)
                    if not copied:
                        raise _damaged(at)
                    position += copied
            finally:
                os.close(source)
            return
        for piece in self.open(db, at):
            self.disk.write(target, piece)

    def _pack_fd(self, db: sqlite3.Connection, pack: int) -> int:
        """A descriptor of its own (the caller closes it), so that the cache may drop its copy at any time."""
        with self._open_lock:
            fd = self._open.get(pack)
            if fd is not None:
                self._open.move_to_end(pack)
                return os.dup(fd)
        row = db.execute("SELECT name FROM packs WHERE id=?", (pack,)).fetchone()
        if row is None:
            raise Internal(f"pack {pack} is not in the index")
        fd = os.open(self.packs / row[0], os.O_RDONLY)
        with self._open_lock:
            if pack not in self._open:
                self._open[pack] = os.dup(fd)
                if len(self._open) > _OPEN_PACKS:
                    _, oldest = self._open.popitem(last=False)
                    os.close(oldest)
        return fd

    def sweep(self, db: sqlite3.Connection) -> int:
        """Remove what no index row speaks of (left by a crash or an aborted write); return how many files.

        Only right while no session is open, that is, when the store is opened.
        """
        known = {row[0] for row in db.execute("SELECT name FROM packs")}
        orphans = [path for path in self.packs.iterdir() if path.name not in known]
        orphans += list(self.tmp.iterdir())
        for directory in self.loose.iterdir():
            orphans += [path for path in directory.iterdir() if not _indexed(db, directory.name + path.name)]
        for path in orphans:
            with suppress(FileNotFoundError):
                path.unlink()
        return len(orphans)


class Session:
    """Objects on their way in. Not for use by several threads at once.

    add*/write → `seal` (bytes durable) → `record` in the transaction that refers to them. `abort` at any time
    before `record` leaves nothing but, at most, loose files that the next sweep removes.
    """

    def __init__(self, store: ObjectStore, known: Known) -> None:
        self._store = store
        self._disk = store.disk
        self._known = known
        self._seen: set[bytes] = set()
        self._buffer: dict[bytes, bytes] = {}
        self._buffered = 0
        self._inline: dict[bytes, bytes] = {}
        self._inlined = 0
        self._pack: int | None = None
        self._pack_name = ""
        self._pack_end = 0
        self._unsynced = False
        self._packed: dict[bytes, tuple[int, int]] = {}
        self._large: dict[bytes, tuple[int, Path | None]] = {}

    def add(self, data: Chunk) -> bytes:
        """Take a whole object in (the caller may pass a view; it is copied); return its hash."""
        hash_ = blake3(data).digest()
        if hash_ not in self._seen and hash_ != EMPTY_HASH:
            self._seen.add(hash_)
            if len(data) >= LOOSE_BYTES:
                writer = ObjectWriter(self)
                writer.write(data)
                self._seen.discard(hash_)
                writer.finish()
                return hash_
            self._buffer[hash_] = bytes(data)
            self._buffered += len(data)
            if self._buffered >= _FLUSH_BYTES or len(self._buffer) >= _FLUSH_COUNT:
                self._flush()
        return hash_

    def writer(self) -> ObjectWriter:
        return ObjectWriter(self)

    def read(self, hash_: bytes) -> Iterator[bytes] | None:
        """The bytes of an object that this session holds; None when it does not (the index may)."""
        data = self._buffer.get(hash_, self._inline.get(hash_))
        if data is not None:
            return iter((data,))
        if hash_ in self._large:
            size, tmp = self._large[hash_]
            return pieces_of_file(tmp or self._store.loose_path(hash_), Location(hash_, None, 0, size))
        if hash_ in self._packed and self._pack is not None:
            offset, length = self._packed[hash_]
            return iter((os.pread(self._pack, length, offset),))
        return None

    def seal(self) -> None:
        """Make every byte taken in so far durable. May be called again after more was added."""
        disk = self._disk
        if self._buffer and self._pack is None and self._inlined + self._buffered <= INLINE_BYTES:
            self._inline.update(self._new(self._buffer))
            self._inlined += self._buffered
            self._buffer, self._buffered = {}, 0
        elif self._buffer:
            self._flush()
        if self._pack is not None and self._unsynced:
            disk.sync(self._pack)
            disk.sync_directory(self._store.packs)
            self._unsynced = False
        pending = [(hash_, tmp) for hash_, (_, tmp) in self._large.items() if tmp is not None]
        for _, tmp in pending:
            disk.sync_path(tmp)
        directories = set()
        for hash_, tmp in pending:
            final = self._store.loose_path(hash_)
            if not final.parent.is_dir():
                disk.make_directory(final.parent)
                directories.add(self._store.loose)
            disk.rename(tmp, final)
            self._large[hash_] = (self._large[hash_][0], None)
            directories.add(final.parent)
        for directory in sorted(directories):
            disk.sync_directory(directory)

    def record(self, db: sqlite3.Connection) -> None:
        """Enter everything sealed into the index."""
        rows: list[tuple[bytes, int | None, int, int]] = []
        if self._packed:
            pack = db.execute("INSERT INTO packs (name) VALUES (?)", (self._pack_name,)).lastrowid
            rows += [(hash_, pack, offset, length) for hash_, (offset, length) in self._packed.items()]
        rows += [(hash_, None, 0, size) for hash_, (size, _) in self._large.items()]
        rows += [(hash_, INLINE_PACK, 0, len(data)) for hash_, data in self._inline.items()]
        db.executemany("INSERT OR IGNORE INTO objects (hash, pack, offset, length) VALUES (?,?,?,?)", rows)
        db.executemany("INSERT OR IGNORE INTO small_objects (hash, data) VALUES (?,?)", self._inline.items())

    def close(self) -> None:
        """Let go of the pack's descriptor (after the transaction is over)."""
        if self._pack is not None:
            os.close(self._pack)
            self._pack = None

    def abort(self) -> None:
        """Forget everything unrecorded. Loose files, which others may share by now, wait for the sweep."""
        if self._pack is not None:
            self.close()
            with suppress(OSError):
                (self._store.packs / self._pack_name).unlink()
        for _, tmp in self._large.values():
            if tmp is not None:
                with suppress(OSError):
                    tmp.unlink()
        self._buffer, self._inline, self._packed, self._large = {}, {}, {}, {}

    def _new(self, objects: dict[bytes, bytes]) -> dict[bytes, bytes]:
        known = self._known(list(objects))
        return {hash_: data for hash_, data in objects.items() if hash_ not in known} if known else objects

    def _flush(self) -> None:
        """Append the buffered objects, without those the store already has, to this session's pack."""
        objects = self._inline | self._new(self._buffer)
        if objects and self._pack is None:
            self._pack_name = f"{new_id()}.pack"
            self._pack = self._disk.create(self._store.packs / self._pack_name)
            self._disk.write(self._pack, _MAGIC)
            self._pack_end = len(_MAGIC)
        if objects and self._pack is not None:
            parts: list[bytes] = []
            end = self._pack_end
            for hash_, data in objects.items():
                length = len(data)
                parts += (_HEAD.pack(hash_, length), data)
                self._packed[hash_] = (end + _HEAD.size, length)
                end += _HEAD.size + length
            self._disk.write(self._pack, b"".join(parts))
            self._pack_end = end
            self._unsynced = True
        self._inline, self._buffer, self._buffered = {}, {}, 0

    def take_large(self, hash_: bytes, size: int, tmp: Path) -> None:
        """A finished writer's file. It is dropped again when the store has the object already."""
        if hash_ in self._seen or self._known([hash_]):
            tmp.unlink()
        else:
            self._large[hash_] = (size, tmp)
        self._seen.add(hash_)


class ObjectWriter:
    """One object whose bytes come in pieces: below `LOOSE_BYTES` in memory, above in a file."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._chunks: list[bytes] = []
        self.size = 0
        self._fd: int | None = None
        self._tmp: Path | None = None
        self._hasher: blake3 | None = None

    def write(self, data: Chunk) -> None:
        """Append `data` (copied when it stays in memory)."""
        if not data:
            return
        self.size += len(data)
        if self._fd is not None and self._hasher is not None:
            self._hasher.update(data)
            self._session._disk.write(self._fd, data)
        elif self.size < LOOSE_BYTES:
            self._chunks.append(bytes(data))
        else:
            self._tmp = self._session._store.tmp / new_id()
            self._fd = self._session._disk.create(self._tmp)
            self._hasher = blake3()
            for chunk in (*self._chunks, data):
                self._hasher.update(chunk)
                self._session._disk.write(self._fd, chunk)
            self._chunks = []

    def finish(self) -> tuple[bytes, int]:
        """Hand the object to the session; return (hash, size in bytes)."""
        if self._fd is None or self._hasher is None or self._tmp is None:
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            return self._session.add(data), self.size
        os.close(self._fd)
        self._fd = None
        hash_ = self._hasher.digest()
        self._session.take_large(hash_, self.size, self._tmp)
        return hash_, self.size

    def abort(self) -> None:
        if self._fd is not None and self._tmp is not None:
            os.close(self._fd)
            self._fd = None
            with suppress(OSError):
                self._tmp.unlink()
        self._chunks = []


def locate(db: sqlite3.Connection, hashes: Iterable[bytes]) -> dict[bytes, Location]:
    """Where each of the objects is; those not in the index are missing from the answer."""
    wanted = list(hashes)
    found: dict[bytes, Location] = {}
    cursor = db.cursor()
    cursor.row_factory = None
    for start in range(0, len(wanted), _SQL_VARIABLES):
        part = wanted[start : start + _SQL_VARIABLES]
        marks = ",".join("?" * len(part))
        sql = f"SELECT hash, pack, offset, length FROM objects WHERE hash IN ({marks})"  # noqa: S608
        for row in cursor.execute(sql, part):
            found[row[0]] = Location(*row)
    return found


def pieces_of_file(path: Path, at: Location, offset: int = 0) -> Iterator[bytes]:
    """The bytes of a loose file from `offset` on; the file is open once this returns."""
    return _pieces_of_fd(_open_loose(path, at), at, 0, offset)


def _open_loose(path: Path, at: Location) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _damaged(at) from error


def _pieces_of_fd(fd: int, at: Location, start: int, offset: int) -> Iterator[bytes]:
    try:
        while offset < at.length:
            piece = os.pread(fd, min(READ_BYTES, at.length - offset), start + offset)
            if not piece:
                raise _damaged(at)
            offset += len(piece)
            yield piece
    finally:
        os.close(fd)


def _indexed(db: sqlite3.Connection, name: str) -> bool:
    try:
        hash_ = bytes.fromhex(name)
    except ValueError:
        return False
    return db.execute("SELECT 1 FROM objects WHERE hash=?", (hash_,)).fetchone() is not None


def _damaged(at: Location) -> Internal:
    place = "its loose file" if at.pack is None else f"pack {at.pack} at byte {at.offset}"
    return Internal(f"object {at.hash.hex()} is damaged: {place} is missing or short")
