"""Files on their way into a tree: `stage`. The way back is `layout`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.trees.edit import Put, TreeEditor
from kaos_backend.engine.store.trees.nodes import EMPTY, Node
from kaos_backend.engine.store.trees.upload import Upload

_COPY_BYTES = 4 << 20


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
