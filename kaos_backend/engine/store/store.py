"""The store: the one object the rest of the engine talks to."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from kaos_backend.engine import ids
from kaos_backend.engine.clock import Clock, now_us
from kaos_backend.engine.errors import EngineError, FailedPrecondition, Unknown
from kaos_backend.engine.store.bytes.batch import Chunk
from kaos_backend.engine.store.bytes.damage import Damage, erase, record
from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.bytes.objects import ObjectStore, holds_content, locate
from kaos_backend.engine.store.bytes.partial import Partials
from kaos_backend.engine.store.changes import ChangeBus
from kaos_backend.engine.store.db import Database
from kaos_backend.engine.store.model import (
    DEFAULT_PROJECT,
    FileSource,
    Subtree,
)
from kaos_backend.engine.store.reads import Reads
from kaos_backend.engine.store.references import Leases, Roots, Turns
from kaos_backend.engine.store.schema import MIGRATIONS, Migration
from kaos_backend.engine.store.trees import files
from kaos_backend.engine.store.trees.build import TreeBuilder
from kaos_backend.engine.store.trees.cache import NodeCache
from kaos_backend.engine.store.trees.edit import Overlay
from kaos_backend.engine.store.trees.files import NewFile, Staged
from kaos_backend.engine.store.trees.folder import FolderUpload
from kaos_backend.engine.store.trees.layout import Place, Tree
from kaos_backend.engine.store.trees.materialize import materialize
from kaos_backend.engine.store.trees.nodes import Node
from kaos_backend.engine.store.trees.upload import Upload
from kaos_backend.engine.store.txn import Hooks, Txn, fetch_tree
from kaos_backend.engine.store.versions import refs
from kaos_backend.engine.store.versions.filesets import FileSets
from kaos_formats.handover import Folder

__all__ = ["Migration", "NewFile", "Staged", "Store", "Txn", "Upload"]

log = logging.getLogger(__name__)

Condemned = Callable[[bytes], bool]
"""Whether a collection is about to remove an object."""


class Received(NamedTuple):
    """How much of an object there is; when it is whole the file set that has it; whether it was another."""

    size: int
    file_set: str = ""
    differs: bool = False


class Store(Reads):
    """Projects, repos, branches, commits and files below one directory, for the threads of one process.

    Attributes:
        changes: grows with every committed write.
        hooks: what other layers do inside every write transaction.
        filesets: temporary trees.
        damage: the objects that are known to be damaged or gone.
        partials: what has come of large objects whose stream broke off.
        roots: what keeps content from being collected.
        leases: who counts on content that nothing may refer to.
        condemned: what a collection is about to remove: it is not there for anybody who comes now.
        upkeep: whose turn it is to check or to collect.
    """

    def __init__(self, root: Path, clock: Clock, new_id: Callable[[], str], db: Database, disk: Disk) -> None:
        self.root = root
        self.clock = clock
        self.new_id = new_id
        self.changes = ChangeBus()
        self.hooks = Hooks()
        self.damage = Damage(self._save_damage)
        self.objects = ObjectStore(root, disk, self.damage)
        self.partials = Partials(root, disk, clock)
        self.nodes = NodeCache(self._fetch)
        self.filesets = FileSets(clock, new_id)
        self.roots = Roots()
        self.roots.hold(self.filesets)
        self.leases = Leases()
        self.condemned: Condemned | None = None
        self.upkeep = Turns()
        self._db = db

    @classmethod
    def open(
        cls,
        root: Path,
        clock: Clock = now_us,
        new_id: Callable[[], str] = ids.new_id,
        migrations: Sequence[Migration] = (),
        disk: Disk | None = None,
    ) -> Store:
        """Open the store below `root`, making it if needed, and sweep what a crash may have left.

        `migrations` are those of other layers' tables; they are applied after the store's own.

        Raises:
            FailedPrecondition: another version of kaos wrote it, or its database is gone.
        """
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = root / "engine.sqlite"
        if not database.exists() and holds_content(root):
            # A new database would know nothing of it, and the sweep would remove it all.
            raise FailedPrecondition(
                f"{database} is gone, but what it spoke of is still in {root}: put it back (from a backup), "
                "or move that folder away to begin anew"
            )
        db = Database(database, [*MIGRATIONS, *migrations], clock())
        store = cls(root, clock, new_id, db, disk or Disk())
        with store.read() as connection:
            store.damage.load(connection)
            store.objects.sweep(connection)
        store.partials.sweep()
        if not any(project.name == DEFAULT_PROJECT for project in store.list_projects()):
            with store.write() as txn:
                txn.create_project(DEFAULT_PROJECT)
        return store

    def close(self) -> None:
        """Close every connection. Calls after that fail."""
        self.objects.close()
        self._db.close()

    @contextmanager
    def write(self, set_id: str | None = None, dry_run: bool = False) -> Iterator[Txn]:
        """One write transaction: propagation and hooks at its end, then COMMIT, then the bus is notified.

        An exception, or `dry_run`, rolls everything back. Do not nest in one thread (RuntimeError).
        """
        with self._db.write() as connection:
            txn = Txn(
                connection,
                set_id or self.new_id(),
                self.clock(),
                dry_run,
                objects=self.objects,
                nodes=self.nodes,
                hooks=self.hooks,
                upload=self.upload,
            )
            yield txn
            txn.settle()
            if dry_run:
                return
            connection.execute("COMMIT")
        try:
            txn.committed()
        finally:
            self.changes.notify()

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """A read-only connection that sees one snapshot; rows are `sqlite3.Row`."""
        return self._db.read()

    def _connection(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._db.read()

    def load(self, key: bytes) -> Node:
        return self.nodes.load(key)

    def _fetch(self, key: bytes) -> bytes:
        with self.read() as db:
            return fetch_tree(db, key)

    def cluster_id(self) -> str:
        """The id of this store, made once and kept."""
        with self.read() as db:
            found = refs.cluster_value(db, "id")
        if found is not None:
            return found
        with self.write() as txn:
            return txn.make_cluster_id(self.new_id())

    def upload(self) -> Upload:
        """A place to receive a stream of changes in; see `Upload`."""
        return Upload(self.objects, self._known, self.leases.take())

    def _known(self, hashes: list[bytes]) -> set[bytes]:
        # Asked first: what is condemned later stays until the lease of who asks has ended.
        condemned = self.condemned
        with self.read() as db:
            found = locate(db, hashes).keys() - self.damage.among(hashes)
        return found if condemned is None else {one for one in found if not condemned(one)}

    @contextmanager
    def maintain(self) -> Iterator[sqlite3.Connection]:
        """A write transaction for what changes nothing that anybody sees. The body commits."""
        with self._db.write() as db:
            yield db

    def rewrite_database(self) -> None:
        """See `Database.rewrite`."""
        self._db.rewrite()

    def fold_log(self) -> None:
        """See `Database.fold_log`."""
        self._db.fold_log()

    def readers_before(self) -> Callable[[], int]:
        """See `Database.readers_before`."""
        return self._db.readers_before()

    def missing_bytes(self, sizes: Mapping[bytes, int]) -> int:
        """The bytes of those objects, given by name and size, that are not stored; nor a part of them."""
        known = self._known(list(sizes))
        begun = self.partials.sizes(sizes)
        return sum(size - min(size, begun.get(name, 0)) for name, size in sizes.items() if name not in known)

    def find(self, sizes: Mapping[bytes, int]) -> tuple[set[bytes], str]:
        """Which of those objects, given by name and size, are stored; and a file set in which each is a file
        called like it in hex, "" where there are none.
        """
        with self.upload() as upload:
            known = self._known(list(sizes))
            with self.read() as db:
                there = {name for name, at in locate(db, known).items() if at.length == sizes[name]}
            if not there:
                return there, ""
            return there, self._by_name(upload, {name: sizes[name] for name in there})

    def receive(self, name: bytes, size: int, offset: int, pieces: Iterable[Chunk]) -> Received:
        """Take in a large object whose name is known, from `offset` on; what has come stays when `pieces` end
        too early, or raise, for another call to go on with. With 0 it begins anew.

        Raises:
            Unknown: more comes than it has; nothing stays.
            DiskFull: the disk is full; nothing stays.
        """
        with self.partials.open(name) as partial:
            if partial is None:
                # Somebody else sends it right now: what comes here stays if it is all of it.
                return Received(0) if offset else self._receive_whole(name, size, pieces)
            if offset == 0:
                partial.begin_anew()
            elif partial.size != offset:
                return Received(partial.size)
            for piece in pieces:
                if partial.size + len(piece) > size:
                    partial.drop()
                    raise Unknown(f"object {name.hex()} is to have {size} bytes, and more came")
                partial.write(piece)
            if partial.size < size:
                return Received(partial.size)
            if partial.digest() != name:
                partial.drop()
                return Received(0, differs=True)
            with self.upload() as upload:
                upload.batch.take_large(name, size, partial.path)
                return Received(size, self._by_name(upload, {name: size}))

    def _receive_whole(self, name: bytes, size: int, pieces: Iterable[Chunk]) -> Received:
        with self.upload() as upload, upload.batch.writer() as writer:
            for piece in pieces:
                if writer.size + len(piece) > size:
                    raise Unknown(f"object {name.hex()} is to have {size} bytes, and more came")
                writer.write(piece)
            if writer.size < size:
                return Received(0)
            if writer.finish() != (name, size):
                return Received(0, differs=True)
            return Received(size, self._by_name(upload, {name: size}))

    def _by_name(self, upload: Upload, sizes: Mapping[bytes, int]) -> str:
        """A file set in which each of these objects is a file called like it in hex."""
        builder = TreeBuilder()
        names = sorted(sizes)
        builder.put([f"/{name.hex()}" for name in names], names, [sizes[name] for name in names])
        root = builder.finish()
        upload.seal()
        with self.write() as txn:
            txn.adopt(Staged(upload, root, builder.rows))
        # While the upload still has its lease.
        return self.filesets.add([Overlay(root)], root)

    def stored_bytes(self) -> int:
        """The bytes of all objects."""
        with self.read() as db:
            return int(db.execute("SELECT COALESCE(SUM(length), 0) FROM objects").fetchone()[0])

    def clear_damage(self, objects: Sequence[bytes]) -> None:
        """What was thought to be damaged turned out to be whole."""
        with self._db.write() as db:
            erase(db, objects)
            db.execute("COMMIT")
        self.damage.healed(objects)

    def _save_damage(self, object_: bytes, what: str) -> None:
        try:
            with self._db.write() as db:
                record(db, object_, what)
                db.execute("COMMIT")
        except RuntimeError:
            # Found inside a transaction of this thread. The next read of it after a restart finds it again.
            log.warning("object %s %s", object_.hex(), what)
        except (EngineError, sqlite3.Error):
            log.exception("object %s %s, which could not be written down", object_.hex(), what)
        else:
            log.warning("object %s %s", object_.hex(), what)

    @contextmanager
    def ingest(self, folder: Folder) -> Iterator[FolderUpload]:
        """Take files in where they lie on this machine; `keep` makes them stay. NoHandover if it cannot be
        read.
        """
        with self.upload() as upload, FolderUpload(upload, folder) as taking:
            yield taking

    def keep(self, taking: FolderUpload) -> str:
        """Make everything that was taken in a file set; its id."""
        staged = taking.seal()
        with self.write() as txn:
            root = txn.adopt(staged)
        return self.filesets.add([Overlay(root)], root)

    def stage(self, new: Iterable[NewFile], tag: str) -> Staged:
        """Take files in: bytes durable, rows pending until `Txn.adopt`. See `files.stage`."""
        return files.stage(self.upload(), new, tag)

    def materialize(self, root: bytes, path: str, dest: Path, place: Place | None = None) -> None:
        """Write the file or directory at `path` of a tree below `dest`: see `materialize.materialize`."""
        materialize(self, Tree(root, path, place), dest)

    # Each of these is a write transaction of its own; `Txn` has them for use inside a larger one.

    def merge(self, roots: Iterable[bytes | None]) -> bytes | None:
        with self.write() as txn:
            return txn.merge(roots)

    def build_tree(self, entries: Mapping[str, Subtree | FileSource | None]) -> bytes | None:
        with self.write() as txn:
            return txn.build_tree(entries.items())
