"""Content-addressed objects on disk: packs for small ones, loose files for large ones.

Objects are named by the BLAKE3-256 of their bytes and never change. How they come in is `session`'s part;
here is where they lie and how they are read.

Pack file: 8 bytes magic, then records of hash (32 bytes), length (unsigned 64-bit little endian), content.
The index (table ``objects``) holds where each content starts; the record heads allow rebuilding it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from kaos_backend.engine.errors import Internal
from kaos_backend.engine.store.bytes.disk import Disk

LOOSE_BYTES = 1 << 20
"""Objects of this size (bytes) and above are files of their own."""
INLINE_PACK = -1
READ_BYTES = 4 << 20
EMPTY_HASH = blake3(b"").digest()
PACK_MAGIC = b"kaospk1\n"
PACK_HEAD = struct.Struct("<32sQ")

_SQL_VARIABLES = 500
_OPEN_PACKS = 64


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
