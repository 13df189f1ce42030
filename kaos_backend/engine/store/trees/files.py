"""Between trees and real files: `stage` takes files in, `materialize` writes a directory out."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, DataLoss, NotFound, Unknown, disk_full
from kaos_backend.engine.ids import new_id
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, ObjectStore, locate
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.trees.edit import Put, TreeEditor
from kaos_backend.engine.store.trees.nodes import EMPTY, Node
from kaos_backend.engine.store.trees.tree import look_up, walk
from kaos_backend.engine.store.trees.upload import Upload
from kaos_formats.folders import clean_up

_COPY_BYTES = 4 << 20
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file on its way in: its path in the tree, and its content or a file of a tree that has the same."""

    path: str
    content: BinaryIO | FileEntry


class Staged:
    """Files whose bytes are durable on disk, but whose rows wait for a transaction (`Txn.adopt`).

    Use it as a context manager, or call `discard` when it is not adopted after all. `root` is None when there
    were no files.
    """

    def __init__(self, upload: Upload, root: bytes | None, rows: list[tuple[bytes, bytes]]) -> None:
        self.upload = upload
        self.root = root
        self.rows = rows

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove what was not adopted; afterwards (or after adoption) a no-op."""
        self.upload.__exit__(None, None, None)


def stage(upload: Upload, files: Iterable[NewFile], tag: str) -> Staged:
    """Take `files` in under `tag`. What iterating over them raises is passed on, and nothing is kept.

    Raises:
        Unknown: naming what cannot be kept (its name, it cannot be read).
        DiskFull: the disk is full.
    """
    try:
        for file in files:
            _take(upload, file, tag)
        upload.end_file()
        editor = TreeEditor(_no_nodes, None)
        for put in upload.operations:
            assert isinstance(put, Put), "nothing but additions is made above"
            editor.put(put.path, put.tag, put.object, put.size)
        root, rows, _ = editor.write(lambda pieces: pieces[0])
        upload.seal()
    except BaseException:
        upload.__exit__(None, None, None)
        raise
    return Staged(upload, root, rows)


def _no_nodes(_: bytes) -> Node:
    return EMPTY


def _take(upload: Upload, file: NewFile, tag: str) -> None:
    if isinstance(file.content, FileEntry):
        upload.add_object(file.path, tag, file.content.hash, file.content.size_bytes)
        return
    upload.add(file.path, tag, b"")
    while data := _read(file.content, file.path):
        upload.add(file.path, tag, data)


def _read(file: BinaryIO, path: str) -> bytes:
    try:
        return file.read(_COPY_BYTES)
    except OSError as error:
        raise Unknown(f"{path} cannot be read: {error.strerror}") from error


class _Files(Protocol):
    objects: ObjectStore

    def load(self, key: bytes) -> Node: ...

    def read(self) -> AbstractContextManager[sqlite3.Connection]: ...


def materialize(
    store: _Files, root: bytes, path: str, dest: Path, place: Callable[[str], str | None] | None = None
) -> None:
    """Write the file or directory at `path` of a tree below `dest`, at its full path in the tree.

    `place` says where else a file goes, by its path in the tree (None: nowhere).
    `dest` appears complete or not at all; when it is there already, or another thread is quicker, that is
    fine. Everything in it is read-only. It is a cache: nothing is synced, a power cut may hollow it out.

    Raises:
        DataLoss: content is damaged or gone; the error names its path.
        NotFound: `path` is not in the tree.
        Unknown: a name is too long for this disk.
        DiskFull: the disk is full.
    """
    if dest.is_dir():
        return
    if not look_up(store.load, root, path):
        raise NotFound(f"file {path} not found")
    temporary = dest.with_name(f".{dest.name}.{new_id()}")
    try:
        temporary.mkdir(parents=True, mode=0o755)
        directories = _write_tree(store, root, path, temporary, place or str)
        for directory in reversed(directories):
            Path(directory).chmod(0o555)
        _publish(temporary, dest)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full(str(dest)) from error
        if error.errno == errno.ENAMETOOLONG:
            raise Unknown(f"{error.filename}: a name is too long for a file on disk") from error
        raise
    finally:
        if temporary.exists():
            clean_up(temporary)


def _publish(temporary: Path, dest: Path) -> None:
    try:
        temporary.rename(dest)
    except OSError:
        if not dest.is_dir():
            raise


def _write_tree(
    store: _Files, root: bytes, path: str, top: Path, place: Callable[[str], str | None]
) -> list[str]:
    """Write everything at and below `path`; return the directories made, outermost first."""
    base = str(top)
    # In the order in which they are made.
    directories = {base: None}
    pending: list[FileEntry] = []
    for entry in walk(store.load, root, path):
        if entry.kind == "dir":
            continue
        pending.append(entry)
        if len(pending) >= _AT_A_TIME:
            _write_files(store, pending, base, place, directories)
            pending = []
    _write_files(store, pending, base, place, directories)
    return list(directories)


def _make_directory(path: str, directories: dict[str, None]) -> None:
    missing = []
    while path not in directories:
        missing.append(path)
        path = path.rpartition("/")[0]
    for one in reversed(missing):
        Path(one).mkdir(0o755)
        directories[one] = None


def _write_files(
    store: _Files,
    pending: list[FileEntry],
    base: str,
    place: Callable[[str], str | None],
    directories: dict[str, None],
) -> None:
    with store.read() as db:
        places = locate(db, {entry.hash for entry in pending})
        for entry in pending:
            path = place(entry.path)
            if path is None:
                continue
            target = base + path
            _make_directory(target.rpartition("/")[0], directories)
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o444)
            try:
                # One mode for all, whatever the umask is.
                os.fchmod(fd, 0o444)
                if entry.hash != EMPTY_HASH:
                    store.objects.copy_out(db, store.objects.require(places, entry.hash), fd)
            except DataLoss as error:
                raise error.at(entry.path) from error
            finally:
                os.close(fd)
