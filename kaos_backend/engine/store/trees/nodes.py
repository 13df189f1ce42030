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

from bisect import bisect_left
from collections.abc import Callable
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

import msgspec
from blake3 import blake3

from kaos_backend.engine.errors import Internal
from kaos_backend.engine.store.model import DEFAULT_TAG

_FORMAT: Final = 1
CHUNKED_FROM = 256
"""Lists longer than this are stored in chunks."""


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


class Run(msgspec.Struct):
    """A run of the entries of a directory: a chunk, or all of a list that is stored in one piece.

    What follows from its entries is computed when a directory is changed for the first time, and handed on
    to the next version of the directory by each run that stays.

    Attributes:
        count: how many entries.
        key: of the chunk, b"" where there is none.
        hashed: what the entries add to what the directory's hash is the hash of. None: not computed yet.
        size: of all their content, bytes.
        flawed: one of them is.
        tags: of all of them.
    """

    count: int
    key: bytes
    hashed: bytes | None = None
    size: int = 0
    flawed: bool = False
    tags: frozenset[str | None] = frozenset()


class Node(msgspec.Struct, frozen=True):
    """A directory's content, files sorted by (name, tag) and dirs by name, and how each list is cut."""

    files: list[FileRef]
    dirs: list[DirRef]
    hash: bytes
    size: int
    flawed: bool
    tag: str | None
    file_runs: list[Run]
    dir_runs: list[Run]


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
# How msgpack begins arrays of nine (whose first element is a small integer here) and of four, and how many
# bytes the heads of long arrays have.
_NODE_HEAD, _FILE_HEAD, _SMALL_INTEGERS = 0x99, 0x94, 0x80
_ARRAY_HEADS = {0xDC: 3, 0xDD: 5}
Ref = TypeVar("Ref", FileRef, DirRef)

EMPTY: Final = Node([], [], blake3(b"").digest(), 0, False, "", [], [])
Load = Callable[[bytes], Node]
"""The node of a key."""
Keep = Callable[[bytes, Node], None]
"""Takes a node and its key, so that loading it soon costs nothing."""


def stored_tag(tag: str) -> str:
    """How a tag is written down: the usual one takes no room."""
    return "" if tag == DEFAULT_TAG else tag


def file_key(ref: FileRef) -> tuple[str, str]:
    """By what the files of a directory are sorted."""
    return ref.name, ref.tag


def find(refs: list[Ref], name: str) -> Ref | None:
    """The (first) entry of a name."""
    at = bisect_left(refs, name, key=attrgetter("name"))
    return refs[at] if at < len(refs) and refs[at].name == name else None


def find_file(node: Node, name: str, tag: str) -> FileRef | None:
    """The file of a name under a tag (in its stored form)."""
    at = bisect_left(node.files, (name, tag), key=file_key)
    ref = node.files[at] if at < len(node.files) else None
    return ref if ref is not None and ref.name == name and ref.tag == tag else None


def encode(node: Node) -> bytes:
    """A node as it is stored, beside the chunks of its long lists."""
    in_chunks = len(node.files) > CHUNKED_FROM, len(node.dirs) > CHUNKED_FROM
    return _encode(
        _Stored(
            _FORMAT,
            node.hash,
            node.size,
            node.flawed,
            node.tag,
            [] if in_chunks[0] else node.files,
            [] if in_chunks[1] else node.dirs,
            [run.key for run in node.file_runs] if in_chunks[0] else [],
            [run.key for run in node.dir_runs] if in_chunks[1] else [],
        )
    )


def encode_chunk(refs: list[FileRef] | list[DirRef]) -> bytes:
    return _encode(refs)


def decode(data: bytes, fetch: Fetch) -> Node:
    """The node that `data` encodes; `fetch` gets its chunks, if it has any."""
    stored = _decode_node(data)
    if stored.format != _FORMAT:
        raise Internal(f"a directory is stored in format {stored.format}, this version reads {_FORMAT}")
    files, file_runs = _read(stored.files, stored.file_chunks, _decode_files, fetch)
    dirs, dir_runs = _read(stored.dirs, stored.dir_chunks, _decode_dirs, fetch)
    return Node(files, dirs, stored.hash, stored.size, stored.flawed, stored.tag, file_runs, dir_runs)


def _read(
    refs: list[Ref], chunks: list[bytes], decode_chunk: Callable[[bytes], list[Ref]], fetch: Fetch
) -> tuple[list[Ref], list[Run]]:
    if not chunks:
        return refs, [Run(len(refs), b"")] if refs else []
    runs = []
    for key in chunks:
        part = decode_chunk(fetch(key))
        refs += part
        runs.append(Run(len(part), key))
    return refs, runs


class Links(NamedTuple):
    """What a stored row leads to: objects, and other rows."""

    objects: list[bytes]
    rows: list[bytes]


def links(data: bytes) -> Links:
    """What the row of a directory, or of a chunk of one, leads to. Which it is shows in its first bytes."""
    if data[0] == _NODE_HEAD and data[1] < _SMALL_INTEGERS:
        stored = _decode_node(data)
        dirs = [ref.key for ref in stored.dirs]
        return Links([ref.object for ref in stored.files], dirs + stored.file_chunks + stored.dir_chunks)
    first = data[_ARRAY_HEADS.get(data[0], 1)]
    if first == _FILE_HEAD:
        return Links([ref.object for ref in _decode_files(data)], [])
    return Links([], [ref.key for ref in _decode_dirs(data)])
