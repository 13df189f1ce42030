"""The collection: what nothing refers to goes, while others read and write.

    1. mark      what the roots lead to; what is written meanwhile is noted by triggers
    2. condemn   from here on uploads that find what is not marked do not count on it, and send it again
    3. wait      until the leases have ended that were taken before: what they found is referred to, and
                 noted, or not wanted
    4. remove    rows, some at a time, each time after what was noted in the meantime is marked as well
    5. repack    packs that are mostly dead
    6. unlink    once all have ended who read when the rows were still there: packs and large objects
    7. shrink    the database

Each step leaves a whole store. After a crash nothing is remembered of a collection: files without a row go
when the store is opened, rows that nothing refers to in the next collection.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kaos_backend.engine.store.bytes.objects import PACK_HEAD, locate
from kaos_backend.engine.store.space import packs
from kaos_backend.engine.store.space.mark import Marking
from kaos_backend.engine.store.space.pace import Interrupted, Pace, Progress
from kaos_backend.engine.store.space.shrink import shrink
from kaos_backend.engine.store.space.usage import between
from kaos_backend.engine.store.store import Store

_AT_A_TIME = 400


@dataclass(slots=True)
class Collected:
    """What went, or would go.

    Attributes:
        objects, object_bytes: contents that nothing refers to.
        directories, directory_bytes: listings, in the database.
        packs: files in which objects lay together that went, were they written anew or not.
        freed_bytes: how much smaller the files of the store are, without the database's.
        database_bytes: how much smaller the database is, or about how much it can become.
    """

    objects: int = 0
    object_bytes: int = 0
    directories: int = 0
    directory_bytes: int = 0
    packs: int = 0
    freed_bytes: int = 0
    database_bytes: int = 0


def collect(
    store: Store, pace: Pace | None = None, *, dry_run: bool = False
) -> Iterator[Progress | Collected]:
    """Collect, telling how far it is; the last told is what went. Waits for a check or another collection.

    With `dry_run` nothing is removed.

    Raises:
        FailedPrecondition: a directory is damaged; nothing was removed.
        Interrupted: by `pace`, or its patience is at its end.
    """
    return _Collection(store, pace or Pace(), dry_run).run()


class _Row(NamedTuple):
    """An object, or a listing (whose `pack` is 0)."""

    key: bytes
    pack: int | None
    length: int


_Remove = Callable[[sqlite3.Connection, list[_Row]], None]


class _Collection:
    def __init__(self, store: Store, pace: Pace, dry_run: bool) -> None:
        self._store = store
        self._pace = pace
        self._dry_run = dry_run
        self._marking = Marking(store, pace)
        self._told = Collected()
        # What would go: of each pack so many bytes of records, and of large objects.
        self._going: Counter[int] = Counter()
        self._going_loose = 0

    def run(self) -> Iterator[Progress | Collected]:
        for _ in self._store.upkeep.wait():
            self._pace.rest()
            yield Progress("wait", 0, 1)
        try:
            yield from self._rows()
            yield from self._files()
            if self._dry_run:
                self._told.database_bytes = self._told.directory_bytes
            else:
                self._told.database_bytes = yield from shrink(self._store, self._pace)
        finally:
            self._store.upkeep.end()
        yield self._told

    # Rows

    def _rows(self) -> Iterator[Progress]:
        marking = self._marking
        try:
            marking.begin()
            yield from marking.mark()
            for _ in marking.absorb():
                yield Progress("mark", 1, 1)
            for _ in marking.objects.settle():
                self._pace.rest()
            if not self._dry_run:
                self._store.condemned = self._condemned
                yield from self._wait(self._store.leases.wait())
            for _ in marking.absorb():
                yield Progress("mark", 1, 1)
            # What was put there before somebody condemned anything: whoever did has let go of his lease.
            marking.mark_held()
            yield from self._sweep()
        finally:
            self._store.condemned = None
            marking.end()

    def _condemned(self, hash_: bytes) -> bool:
        return hash_ not in self._marking.objects

    def _wait(self, left: Iterator[int]) -> Iterator[Progress]:
        most = 0
        until = time.monotonic() + self._pace.patience_s
        for count in left:
            self._pace.rest()
            # What is condemned is stored once more if it is sent meanwhile, so this must not last.
            if time.monotonic() > until:
                raise Interrupted("an upload goes on for so long that the collection is left for later")
            most = max(most, count)
            yield Progress("wait", most - count, most)

    def _sweep(self) -> Iterator[Progress]:
        for number in range(256):
            with self._store.read() as db:
                objects = self._dead_objects(db, number)
                trees = self._dead_trees(db, number)
            self._pace.rest()
            yield Progress("sweep", number, 256)
            yield from self._remove(objects, self._remove_objects)
            yield from self._remove(trees, self._remove_trees)
            if not self._dry_run:
                self._remove_strays(number)

    def _dead_objects(self, db: sqlite3.Connection, number: int) -> list[_Row]:
        """Those with this first byte that are not marked."""
        sql = "SELECT hash, pack, length FROM objects WHERE hash >= ? AND hash < ?"
        return [_Row(*row) for row in db.execute(sql, between(number)) if self._condemned(row[0])]

    def _dead_trees(self, db: sqlite3.Connection, number: int) -> list[_Row]:
        keys = db.execute("SELECT key FROM trees WHERE key >= ? AND key < ?", between(number))
        dead = [row[0] for row in keys if not self._marking.has_tree(row[0])]
        sql = "SELECT length(node) FROM trees WHERE key=?"
        return [_Row(key, 0, db.execute(sql, (key,)).fetchone()[0]) for key in dead]

    def _remove(self, rows: list[_Row], some: _Remove) -> Iterator[Progress]:
        for start in range(0, len(rows), _AT_A_TIME):
            while True:
                with self._store.maintain() as db:
                    if done := self._marking.absorbed(db):
                        some(db, rows[start : start + _AT_A_TIME])
                        db.execute("COMMIT")
                self._pace.rest()
                if done:
                    break
                for _ in self._marking.absorb():
                    yield Progress("mark", 1, 1)

    def _remove_objects(self, db: sqlite3.Connection, rows: list[_Row]) -> None:
        gone = [row for row in rows if self._condemned(row.key)]
        self._told.objects += len(gone)
        self._told.object_bytes += sum(row.length for row in gone)
        if self._dry_run:
            for _, pack, length in gone:
                if pack is None:
                    self._going_loose += length
                else:
                    self._going[pack] += length + PACK_HEAD.size
            return
        keys = [(row.key,) for row in gone]
        for table in ("objects", "small_objects", "damaged"):
            db.executemany(f"DELETE FROM {table} WHERE hash=?", keys)  # noqa: S608
        self._store.damage.healed(row.key for row in gone)

    def _remove_trees(self, db: sqlite3.Connection, rows: list[_Row]) -> None:
        gone = [row for row in rows if not self._marking.has_tree(row.key)]
        self._told.directories += len(gone)
        self._told.directory_bytes += sum(row.length for row in gone)
        if not self._dry_run:
            db.executemany("DELETE FROM trees WHERE key=?", [(row.key,) for row in gone])

    def _remove_strays(self, number: int) -> None:
        """Two uploads at once may have brought the same content, and one of them put it into a pack."""
        stray = (
            "FROM small_objects AS s WHERE hash >= ? AND hash < ?"
            " AND NOT EXISTS (SELECT 1 FROM objects WHERE hash = s.hash AND pack = -1)"
        )
        with self._store.read() as db:
            if db.execute(f"SELECT 1 {stray}", between(number)).fetchone() is None:
                return
        with self._store.maintain() as db:
            db.execute(f"DELETE {stray}", between(number))
            db.execute("COMMIT")

    # Files

    def _files(self) -> Iterator[Progress]:
        found = packs.uses(self._store, self._going)
        sparse = [one for one in found if one.sparse]
        if self._dry_run:
            dead = [one for one in found if not one.live]
            self._told.packs = len(dead) + len(sparse)
            self._told.freed_bytes = sum(one.dead for one in dead + sparse) + self._going_loose
            return
        for done in packs.repack(self._store, sparse, self._pace):
            yield Progress("repack", done, len(sparse))
        written = sum(one.live for one in sparse)
        dead = [one for one in packs.uses(self._store) if not one.live]
        with self._store.maintain() as db:
            db.executemany("DELETE FROM packs WHERE id=?", [(one.id,) for one in dead])
            db.execute("COMMIT")
        objects = self._store.objects
        objects.doomed.update((one.id, one.name) for one in dead)
        yield from self._wait(iter(self._store.readers_before(), 0))
        self._told.packs = len(dead)
        self._told.freed_bytes = sum(one.size for one in dead) - written
        while objects.doomed:
            objects.remove_pack(*objects.doomed.popitem())
            self._pace.rest()
        yield from self._unlink_loose()

    def _unlink_loose(self) -> Iterator[Progress]:
        """Large objects without a row, be they removed above or left by an upload that failed."""
        objects = self._store.objects
        for directory in sorted(objects.loose.iterdir()):
            hashes = _hashes_in(directory)
            with self._store.read() as db:
                hashes -= locate(db, hashes).keys()
            for hash_ in hashes:
                self._told.freed_bytes += objects.remove_loose(hash_, self._is_there)
                self._pace.rest()
            yield Progress("sweep", 256, 256)

    def _is_there(self, hash_: bytes) -> bool:
        with self._store.read() as db:
            return bool(locate(db, [hash_]))


def _hashes_in(directory: Path) -> set[bytes]:
    """The objects whose files are in a folder of `objects/`."""
    found = set()
    for path in directory.glob("*"):
        with suppress(ValueError):
            found.add(bytes.fromhex(directory.name + path.name))
    return found
