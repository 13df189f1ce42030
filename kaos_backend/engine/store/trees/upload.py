"""Content on its way in: objects that arrive, the operations that place them, and how both become a tree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.store.bytes.batch import Batch, Chunk, Known, ObjectWriter
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, ObjectStore, locate
from kaos_backend.engine.store.model import DEFAULT_TAG, CommitKey
from kaos_backend.engine.store.names import clean_path, file_path, new_path
from kaos_backend.engine.store.references import Lease
from kaos_backend.engine.store.trees.edit import (
    Copy,
    Delete,
    Operation,
    Piece,
    Pieces,
    Put,
    TreeEditor,
    Written,
)
from kaos_backend.engine.store.trees.nodes import Keep, Load


class Upload:
    """One stream of changes, applied as a whole or not at all.

    Use it as a context manager around receiving and applying: whatever was not committed by its end is
    removed.
    """

    def __init__(self, objects: ObjectStore, known: Known, lease: Lease) -> None:
        self.objects = objects
        self._lease = lease
        # What was added without its bytes.
        self._relied: set[bytes] = set()
        self.batch: Batch = Batch(objects, known)
        self.operations: list[Operation] = []
        self._path = ""
        self._clean = ""
        self._tag = ""
        self._writer: ObjectWriter | None = None
        self.committed = False

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.abort()
        if self.committed:
            self.batch.recorded()
        else:
            self.batch.abort()
        self._lease.release()

    def add(self, path: str, tag: str, data: Chunk) -> None:
        """Append `data` to a file; no data makes sure that it exists.

        Raises:
            Unknown: the path is one that PFS refuses.
            DiskFull: the disk is full.
        """
        if self._writer is None or path != self._path or tag != self._tag:
            self.end_file()
            self._clean = file_path(path)
            self._path, self._tag, self._writer = path, tag, self.batch.writer()
        self._writer.write(data)

    def add_object(self, path: str, tag: str, hash_: bytes, size: int) -> None:
        """Append an object that the store has already."""
        self.end_file()
        if hash_ != EMPTY_HASH:
            self._relied.add(hash_)
        self.operations.append(Put(file_path(path), tag or DEFAULT_TAG, hash_, size))

    def add_taken(self, path: str, tag: str, hash_: bytes, size: int) -> None:
        """Append an object that was given to `batch`; `path` is a cleaned one."""
        self.end_file()
        self.operations.append(Put(path, tag or DEFAULT_TAG, hash_, size))

    def confirm(self, db: sqlite3.Connection) -> None:
        """In the transaction that refers to it: what `add_object` was told of is there.

        Raises:
            Unknown: what held it was deleted meanwhile.
        """
        gone = self._relied - locate(db, self._relied).keys()
        if gone:
            paths = [put.path for put in self.operations if isinstance(put, Put) and put.object in gone]
            raise Unknown(f"{paths[0]}: its content was deleted while it was being added")

    def delete(self, path: str, tag: str) -> None:
        self.end_file()
        self.operations.append(Delete(clean_path(path or "/"), tag or DEFAULT_TAG))

    def copy(
        self, dst: str, tag: str, source: CommitKey | bytes | None, src: str, src_tag: str, append: bool
    ) -> None:
        """Copy a file or directory of another commit (or tree) by reference; nothing there, nothing done."""
        self.end_file()
        self.operations.append(
            Copy(new_path(dst), tag or DEFAULT_TAG, source, clean_path(src or "/"), src_tag, append)
        )

    def end_file(self) -> None:
        """Note that the next bytes belong to another file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self.add_taken(self._clean, self._tag, *writer.finish())

    def seal(self) -> None:
        """Make every byte received durable, so that the transaction to come has little to wait for."""
        self.end_file()
        self.batch.seal()


def edit_tree(
    db: sqlite3.Connection,
    load: Load,
    keep: Keep,
    root: bytes | None,
    operations: Iterable[Operation],
    objects: ObjectStore,
    batch: Batch,
) -> bytes | None:
    """Apply operations to a tree and store the result; return its root.

    Copies must name trees, not commits. Objects of `batch` are durable and in the index afterwards.
    """
    editor = TreeEditor(load, root)
    for operation in operations:
        if isinstance(operation, Put):
            editor.put(operation.path, operation.tag, operation.object, operation.size)
        elif isinstance(operation, Delete):
            editor.delete(operation.path, operation.tag)
        elif isinstance(operation, Copy):
            assert not isinstance(operation.source, CommitKey), "copies are resolved before they are applied"
            editor.copy(
                operation.dst,
                operation.tag,
                operation.source,
                operation.src,
                operation.src_tag,
                operation.append,
            )
        else:
            editor.overlay(operation.root, append=True)
    return store_tree(db, editor, keep, objects, batch).root


def store_tree(
    db: sqlite3.Connection, editor: TreeEditor, keep: Keep, objects: ObjectStore, batch: Batch
) -> Written:
    """Write an edited tree and what its files need; its wide directories are given to `keep`."""
    written = write_tree(db, editor, keep, objects, batch)
    batch.seal()
    batch.record(db)
    return written


def write_tree(
    db: sqlite3.Connection, editor: TreeEditor, keep: Keep, objects: ObjectStore, batch: Batch
) -> Written:
    """As `store_tree`, but what its files need is not recorded yet."""

    def concat(pieces: Pieces) -> Piece:
        with batch.writer() as writer:
            for hash_, _ in pieces:
                for data in read_any(db, objects, batch, hash_):
                    writer.write(data)
            return writer.finish()

    written = editor.write(concat)
    insert_trees(db, written.rows)
    for key, node in written.wide:
        keep(key, node)
    return written


def insert_trees(db: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]]) -> None:
    """Store nodes and chunks. One that is there but damaged is replaced."""
    db.executemany(
        "INSERT INTO trees (key, node) VALUES (?,?) "
        "ON CONFLICT (key) DO UPDATE SET node=excluded.node WHERE node IS NOT excluded.node",
        # Directories that are alike are one row; in order, so that few pages are changed.
        sorted(dict(rows).items()),
    )


def read_any(db: sqlite3.Connection, objects: ObjectStore, batch: Batch, hash_: bytes) -> Iterator[bytes]:
    """The bytes of an object of the batch or of the index."""
    if hash_ == EMPTY_HASH:
        return iter(())
    pieces = batch.read(hash_)
    if pieces is not None:
        return pieces
    return objects.open(db, objects.require(locate(db, [hash_]), hash_))
