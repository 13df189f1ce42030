"""Directories as they are stored: immutable nodes that name their content.

A directory is a `Node`: its files and its subdirectories, each sorted by name. Nodes are stored under the
BLAKE3 of their encoded form (`key`), so equal directories are stored once and a change rewrites only the
directories on its way to the root. Large directories are cut into chunks at places that depend on the names
only: adding a file to a directory of 100,000 writes one new chunk, not a new list.

Besides its key a directory has a `hash`, derived from the names and hashes of what it holds, *without* tags:
equal content gives an equal hash whoever wrote it.

On disk (msgpack arrays):
    node   [format, hash, size, flawed, tag, files, dirs, file chunks, dir chunks]
    file   [name, tag, object, size]           tag "" stands for "default"
    dir    [name, key, hash, size, flawed, tag]
Either `files` is filled or `file chunks` (keys of msgpack arrays of files) is; likewise for directories.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeVar

import msgspec
from blake3 import blake3

from kaos_backend.engine.errors import Internal
from kaos_backend.engine.store.model import DEFAULT_TAG

_FORMAT: Final = 1
_CHUNKED_FROM = 256
"""Lists longer than this are stored in chunks."""
_CHUNK_MASK = 127
"""A chunk ends after a name whose CRC-32 has these bits clear: 128 entries on average."""
# 210 to 290 bytes each.
_CACHE_ENTRIES = 100_000

Fetch = Callable[[bytes], bytes]
"""The stored bytes of a tree key (of a node or of a chunk)."""


class FileRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file of a directory: content `object` (hash, 32 bytes) of `size` bytes, written under `tag`."""

    name: str
    tag: str
    object: bytes
    size: int

    @property
    def full_tag(self) -> str:
        return self.tag or DEFAULT_TAG


class DirRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A subdirectory. `flawed`: holds a collision; `tag`: that of all files below, None if they differ."""

    name: str
    key: bytes
    hash: bytes
    size: int
    flawed: bool
    tag: str | None


class Node(msgspec.Struct, frozen=True):
    """A directory's content, files sorted by (name, tag) and dirs by name."""

    files: list[FileRef]
    dirs: list[DirRef]
    hash: bytes
    size: int
    flawed: bool
    tag: str | None


class _Stored(msgspec.Struct, array_like=True):
    format: int
    hash: bytes
    size: int
    flawed: bool
    tag: str | None
    files: list[FileRef]
    dirs: list[DirRef]
    file_chunks: list[bytes]
    dir_chunks: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode_node = msgspec.msgpack.Decoder(_Stored).decode
_decode_files = msgspec.msgpack.Decoder(list[FileRef]).decode
_decode_dirs = msgspec.msgpack.Decoder(list[DirRef]).decode
_Ref = TypeVar("_Ref", FileRef, DirRef)

EMPTY: Final = Node([], [], blake3(b"").digest(), 0, False, "")
Load = Callable[[bytes], Node]
"""The node of a key."""


def stored_tag(tag: str) -> str:
    """How a tag is written down: the usual one takes no room."""
    return "" if tag == DEFAULT_TAG else tag


def make_node(files: list[FileRef], dirs: list[DirRef]) -> Node:
    """A node over sorted entries, with what follows from them."""
    parts: list[bytes] = []
    size = 0
    flawed = False
    tags: set[str | None] = set()
    previous = ""
    for file in files:
        name = file.name
        parts += (b"f", name.encode(), b"\0", file.object)
        size += file.size
        if name == previous:
            flawed = True
        previous = name
        tags.add(file.tag)
    names = {file.name for file in files} if dirs else frozenset()
    for directory in dirs:
        parts += (b"d", directory.name.encode(), b"\0", directory.hash)
        size += directory.size
        flawed = flawed or directory.flawed or directory.name in names
        tags.add(directory.tag)
    tag = tags.pop() if len(tags) == 1 else None
    return Node(files, dirs, blake3(b"".join(parts)).digest(), size, flawed, tag)


def encode(node: Node) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """(key, rows to store) of a node; the rows are (key, bytes), the node's own last."""
    rows: list[tuple[bytes, bytes]] = []
    files, file_chunks = _chunk(node.files, rows)
    dirs, dir_chunks = _chunk(node.dirs, rows)
    data = _encode(
        _Stored(_FORMAT, node.hash, node.size, node.flawed, node.tag, files, dirs, file_chunks, dir_chunks)
    )
    key = blake3(data).digest()
    rows.append((key, data))
    return key, rows


def _chunk(refs: list[_Ref], rows: list[tuple[bytes, bytes]]) -> tuple[list[_Ref], list[bytes]]:
    if len(refs) <= _CHUNKED_FROM:
        return refs, []
    keys: list[bytes] = []
    start = 0
    crc = zlib.crc32
    for end, ref in enumerate(refs, 1):
        if end == len(refs) or not crc(ref.name.encode()) & _CHUNK_MASK:
            data = _encode(refs[start:end])
            key = blake3(data).digest()
            rows.append((key, data))
            keys.append(key)
            start = end
    return [], keys


def decode(data: bytes, fetch: Fetch) -> Node:
    """The node that `data` encodes; `fetch` gets its chunks, if it has any."""
    stored = _decode_node(data)
    if stored.format != _FORMAT:
        raise Internal(f"a directory is stored in format {stored.format}, this version reads {_FORMAT}")
    files, dirs = stored.files, stored.dirs
    for key in stored.file_chunks:
        files += _decode_files(fetch(key))
    for key in stored.dir_chunks:
        dirs += _decode_dirs(fetch(key))
    return Node(files, dirs, stored.hash, stored.size, stored.flawed, stored.tag)


class NodeCache:
    """Decoded nodes, the most recently used ones, bounded by how many entries they hold together."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
        self._entries = 0
        self._lock = Lock()

    def load(self, key: bytes, fetch: Fetch | None = None) -> Node:
        with self._lock:
            node = self._nodes.get(key)
            if node is not None:
                self._nodes.move_to_end(key)
                return node
        fetch = fetch or self._fetch
        node = decode(fetch(key), fetch)
        with self._lock:
            if key not in self._nodes:
                self._nodes[key] = node
                self._entries += _weight(node)
                while self._entries > _CACHE_ENTRIES and len(self._nodes) > 1:
                    _, dropped = self._nodes.popitem(last=False)
                    self._entries -= _weight(dropped)
        return node


def _weight(node: Node) -> int:
    return len(node.files) + len(node.dirs) + 1
