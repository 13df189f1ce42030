"""Content-addressed objects on disk: packs for small ones, loose files for large ones.

Objects are named by the BLAKE3-256 of their bytes and never change. How they come in is `batch`'s part;
here is where they lie and how they are read.

Pack file: 8 bytes magic, then records of hash (32 bytes), length (unsigned 64-bit little endian), content.
The index (table ``objects``) holds where each content starts; the record heads allow rebuilding it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, DataLoss
from kaos_backend.engine.store.bytes.damage import Damage
from kaos_backend.engine.store.bytes.disk import Disk, read_at
from kaos_formats.folders import clean_up, folder

LOOSE_BYTES = 1 << 20
"""Objects of this size (bytes) and above are files of their own."""
INLINE_PACK = -1
READ_BYTES = 1 << 20
"""How much of an object is in memory at a time: what a reader that stalls keeps there, too."""
EMPTY_HASH = blake3(b"").digest()
PACK_MAGIC = b"kaospk1\n"
PACK_HEAD = struct.Struct("<32sQ")

_SQL_VARIABLES = 500
_OPEN_PACKS = 64
_COPY_BYTES = 1 << 20
_LINKED_MODE = 0o444
_VERIFIED_OBJECTS = 4096
# Trouble of this process, not of what is stored.
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


class Location(NamedTuple):
    """Where an object's bytes are. `pack` is a pack's id, None for a loose file, -1 for `small_objects`."""

    hash: bytes
    pack: int | None
    offset: int
    length: int


class _FileState(NamedTuple):
    """What changes with a file's content, unless it is the disk that changes it."""

    device: int
    inode: int
    changed_ns: int
    size: int

    @classmethod
    def of(cls, fd: int) -> _FileState:
        found = os.fstat(fd)
        return cls(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


class ObjectStore:
    """The directories ``packs/``, ``objects/`` and ``tmp/`` of one store.

    Whatever is read is checked against its name: small objects before a byte of them is given away, large
    ones before the last piece is. Damage is noted in `damage` and raised as DataLoss.
    """

    def __init__(self, root: Path, disk: Disk, damage: Damage) -> None:
        self.disk = disk
        self.damage = damage
        self.packs = root / "packs"
        self.loose = root / "objects"
        self.tmp = folder(root / "tmp")
        for directory in (self.packs, self.loose):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open: OrderedDict[int, tuple[str, int]] = OrderedDict()
        self._verified: OrderedDict[bytes, _FileState] = OrderedDict()
        self._lock = threading.Lock()
        # Large objects whose files are put in place by batches that have not ended.
        self._arriving: Counter[bytes] = Counter()
        self._arriving_lock = threading.Lock()
        # Packs, by their ids, whose rows are gone, and which somebody may be reading.
        self.doomed: dict[int, str] = {}

    def close(self) -> None:
        """Let go of the packs that are open. Those needed again are opened anew."""
        with self._lock:
            for _, fd in self._open.values():
                os.close(fd)
            self._open.clear()

    def require(self, places: Mapping[bytes, Location], hash_: bytes) -> Location:
        """Where an object is that something refers to. DataLoss when the index does not know it."""
        at = places.get(hash_)
        if at is None:
            raise self.damage.note(hash_, "is not in the index")
        return at

    def loose_path(self, hash_: bytes) -> Path:
        text = hash_.hex()
        return self.loose / text[:2] / text[2:]

    def open(self, db: sqlite3.Connection, at: Location, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one object from `offset` on, in pieces of at most `READ_BYTES`.

        `db` is not used any more once this returns. The first read of a large object from its middle reads
        and hashes what lies before, too; later ones do not, as long as its file stays as it is.

        Raises:
            DataLoss: now, or before the last piece.
        """
        if at.pack is None:
            return self._stream(self._loose_fd(at), at, offset)
        data = self.small(db, at)
        return iter((data[offset:],) if len(data) > offset else ())

    def small(self, db: sqlite3.Connection, at: Location) -> bytes:
        """All bytes of an object below `LOOSE_BYTES`. DataLoss when they are not what its name says."""
        if at.pack is None:
            return b"".join(self.open(db, at))
        if at.pack == INLINE_PACK:
            row = db.execute("SELECT data FROM small_objects WHERE hash=?", (at.hash,)).fetchone()
            if row is None:
                raise self.damage.note(at.hash, "is missing in the database")
            data: bytes = row[0]
            place = "the database"
        else:
            place, fd = self._pack_fd(db, at)
            try:
                data = read_at(fd, at.length, at.offset)
            except OSError as error:
                raise self._unreadable(error, at, place) from error
            finally:
                os.close(fd)
        if len(data) != at.length:
            raise self._cut_short(at, place)
        if blake3(data).digest() != at.hash:
            raise self.damage.note(at.hash, f"has changed in {place}")
        return data

    def copy_out(self, db: sqlite3.Connection, at: Location, target: int) -> None:
        """Write an object's bytes to an open file. DataLoss when they are not what its name says."""
        if at.pack is not None:
            self.disk.write(target, self.small(db, at))
            return
        fd = self._loose_fd(at)
        try:
            if self.disk.clone(fd, target):
                self._verify(fd, at)
            else:
                self._read_through(fd, at, lambda piece: self.disk.write(target, piece))
        finally:
            os.close(fd)

    def link_out(self, at: Location, target: str) -> int | None:
        """Give a large object's file another name, for those who can only read it; its inode.

        It has the mode 0444 from then on. It is hashed first, unless that was done and the file is the same.
        None, and nothing is done, for a small object and where no link can be made (a file has 65,000 names
        at most on ext4). DataLoss when its bytes are not what its name says.
        """
        if at.pack is not None:
            return None
        fd = self._loose_fd(at)
        try:
            self._verify(fd, at)
            status = os.fstat(fd)
            if status.st_mode & 0o777 != _LINKED_MODE:
                os.fchmod(fd, _LINKED_MODE)
            # By the descriptor: the name may be that of another inode by now.
            os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd, follow_symlinks=True)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise
            return None
        finally:
            os.close(fd)
        return status.st_ino

    def inode(self, hash_: bytes) -> int | None:
        """The inode of a large object's file; None when there is none."""
        try:
            return os.stat(self.loose_path(hash_)).st_ino  # noqa: PTH116
        except OSError:
            return None

    def _verify(self, fd: int, at: Location) -> None:
        """Hash a large object, unless that was done since its file was last changed."""
        if not self._is_verified(fd, at):
            self._read_through(fd, at, lambda _: None)

    def _read_through(self, fd: int, at: Location, take: Callable[[memoryview], None]) -> None:
        # One buffer for all pieces: fresh memory for each costs more than reading, hashing and writing.
        view = memoryview(bytearray(_COPY_BYTES))
        hasher, position = blake3(), 0
        while position < at.length:
            try:
                count = os.preadv(fd, [view[: at.length - position]], position)
            except OSError as error:
                raise self._unreadable(error, at, self._loose_name(at)) from error
            if not count:
                raise self._cut_short(at, self._loose_name(at))
            hasher.update(view[:count])
            take(view[:count])
            position += count
        self._compare(hasher, fd, at)

    def _stream(self, fd: int, at: Location, offset: int) -> Iterator[bytes]:
        try:
            # Only ranges trust an earlier read: a whole one hashes what it reads anyway at little cost.
            verified = offset > 0 and self._is_verified(fd, at)
            hasher = blake3()
            position = offset if verified else 0
            while position < at.length:
                try:
                    piece = os.pread(fd, min(READ_BYTES, at.length - position), position)
                except OSError as error:
                    raise self._unreadable(error, at, self._loose_name(at)) from error
                if not piece:
                    raise self._cut_short(at, self._loose_name(at))
                position += len(piece)
                if not verified:
                    hasher.update(piece)
                    if position == at.length:
                        self._compare(hasher, fd, at)
                if position > offset:
                    yield piece[max(0, offset - (position - len(piece))) :]
        finally:
            os.close(fd)

    def _compare(self, hasher: blake3, fd: int, at: Location) -> None:
        """What was read is what the name says, and is taken to stay so while its file does not change."""
        if hasher.digest() != at.hash:
            raise self.damage.note(at.hash, f"has changed in {self._loose_name(at)}")
        with self._lock:
            self._verified[at.hash] = _FileState.of(fd)
            if len(self._verified) > _VERIFIED_OBJECTS:
                self._verified.popitem(last=False)

    def _is_verified(self, fd: int, at: Location) -> bool:
        with self._lock:
            known = self._verified.get(at.hash)
        return known is not None and known == _FileState.of(fd)

    def _loose_name(self, at: Location) -> str:
        path = self.loose_path(at.hash)
        return f"objects/{path.parent.name}/{path.name}"

    def _loose_fd(self, at: Location) -> int:
        try:
            return os.open(self.loose_path(at.hash), os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error, at, self._loose_name(at)) from error

    def _pack_fd(self, db: sqlite3.Connection, at: Location) -> tuple[str, int]:
        """(what to call it, a descriptor of its own), so that the cache may drop its copy at any time."""
        assert at.pack is not None
        with self._lock:
            known = self._open.get(at.pack)
            if known is not None:
                self._open.move_to_end(at.pack)
                return known[0], os.dup(known[1])
        row = db.execute("SELECT name FROM packs WHERE id=?", (at.pack,)).fetchone()
        if row is None:
            raise self.damage.note(at.hash, f"is in pack {at.pack}, which is not in the index")
        place = f"packs/{row[0]}"
        try:
            fd = os.open(self.packs / row[0], os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error, at, place) from error
        with self._lock:
            if at.pack not in self._open:
                self._open[at.pack] = (place, os.dup(fd))
                if len(self._open) > _OPEN_PACKS:
                    _, (_, oldest) = self._open.popitem(last=False)
                    os.close(oldest)
        return place, fd

    def _cut_short(self, at: Location, place: str) -> DataLoss:
        return self.damage.note(at.hash, f"is cut short: {place} ends before it does")

    def _unreadable(self, error: OSError, at: Location, place: str) -> Exception:
        if error.errno in _OUT_OF_RESOURCES:
            return error
        if isinstance(error, FileNotFoundError):
            return self.damage.note(at.hash, f"is gone: there is no {place}")
        return self.damage.note(at.hash, f"cannot be read: {place}: {error.strerror}")

    def arriving(self, hashes: Iterable[bytes]) -> None:
        """The files of these are about to be put in place before a row speaks of them; see `remove_loose`."""
        with self._arriving_lock:
            self._arriving.update(hashes)

    def arrived(self, hashes: Iterable[bytes]) -> None:
        """Their rows are written, or nobody wants them any more."""
        with self._arriving_lock:
            self._arriving.subtract(hashes)
            self._arriving = +self._arriving

    def remove_loose(self, hash_: bytes, wanted: Callable[[bytes], bool]) -> int:
        """Remove the file of an object unless it is `wanted` or about to be; how many bytes that frees."""
        path = self.loose_path(hash_)
        # Who says now that it arrives puts its file in place afterwards; who had it arrive has written a row.
        with self._arriving_lock:
            if hash_ in self._arriving or wanted(hash_):
                return 0
            try:
                size = path.stat().st_size
                self.disk.unlink(path)
            except FileNotFoundError:
                return 0
        return size

    def remove_pack(self, id_: int, name: str) -> None:
        """Remove a pack that nobody speaks of any more."""
        with self._lock:
            known = self._open.pop(id_, None)
        if known is not None:
            os.close(known[1])
        with suppress(FileNotFoundError):
            self.disk.unlink(self.packs / name)

    def sweep(self, db: sqlite3.Connection) -> int:
        """Remove what no index row speaks of (left by a crash or an aborted write); return how many files.

        Only right while no batch is open, that is, when the store is opened.
        """
        known = {row[0] for row in db.execute("SELECT name FROM packs")}
        orphans = [path for path in self.packs.iterdir() if path.name not in known]
        orphans += list(self.tmp.iterdir())
        for directory in self.loose.iterdir():
            if not directory.is_dir():
                orphans.append(directory)
                continue
            paths = {_hash_of(path): path for path in directory.iterdir()}
            indexed = locate(db, [hash_ for hash_ in paths if hash_])
            orphans += [path for hash_, path in paths.items() if hash_ not in indexed]
        for path in orphans:
            clean_up(path)
        return len(orphans)


def holds_content(root: Path) -> bool:
    """Whether there is a pack or a loose object below the directory of a store."""
    return any(any(root.glob(pattern)) for pattern in ("packs/*.pack", "objects/*/*"))


def pack_records(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """(hash, offset of the content, length) of each record of a pack, as its heads have it, whole or not."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        at = len(PACK_MAGIC)
        while at + PACK_HEAD.size <= end:
            file.seek(at)
            hash_, length = PACK_HEAD.unpack(file.read(PACK_HEAD.size))
            at += PACK_HEAD.size
            if at + length <= end:
                yield hash_, at, length
            at += length


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


def _hash_of(path: Path) -> bytes:
    """The object that a loose file holds; its own name, which is none, when it is something else."""
    try:
        return bytes.fromhex(path.parent.name + path.name)
    except ValueError:
        return os.fsencode(path.name)
