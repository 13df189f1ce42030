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
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from blake3 import blake3

from kaos_backend.engine.errors import Internal
from kaos_backend.engine.store.model import DEFAULT_TAG

_FORMAT: Final = 1
CHUNKED_FROM = 256
"""Lists longer than this are stored in chunks."""
_CHUNK_MASK = 127
"""A chunk ends after a name whose CRC-32 has these bits clear: 128 entries on average."""


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
_Ref = TypeVar("_Ref", FileRef, DirRef)

EMPTY: Final = Node([], [], blake3(b"").digest(), 0, False, "", [], [])
Load = Callable[[bytes], Node]
"""The node of a key."""
Keep = Callable[[bytes, Node], None]
"""Takes a node and its key, so that loading it soon costs nothing."""


def stored_tag(tag: str) -> str:
    """How a tag is written down: the usual one takes no room."""
    return "" if tag == DEFAULT_TAG else tag


FileChanges = Mapping[tuple[str, str], FileRef | None]
"""What is other in the files of a directory, by (name, tag); None: gone."""
DirChanges = Mapping[str, DirRef | None]
"""Likewise its subdirectories, by name."""


def revise(base: Node, files: FileChanges, dirs: DirChanges) -> tuple[bytes, Node, list[tuple[bytes, bytes]]]:
    """(key, node, rows to store) of a directory with changes; the rows are (key, bytes), its own last.

    It costs what changes, and little for each chunk that stays.
    """
    rows: list[tuple[bytes, bytes]] = []
    new_files, file_runs = _revise(base.files, base.file_runs, files, _file_key, rows)
    new_dirs, dir_runs = _revise(base.dirs, base.dir_runs, dirs, _dir_key, rows)
    runs = [*_summed(file_runs, new_files, _sum_files), *_summed(dir_runs, new_dirs, _sum_dirs)]
    tags: frozenset[str | None] = frozenset().union(*[run.tags for run in runs])
    node = Node(
        new_files,
        new_dirs,
        blake3(b"".join([run.hashed or b"" for run in runs])).digest(),
        sum([run.size for run in runs]),
        any(run.flawed for run in runs),
        next(iter(tags)) if len(tags) == 1 else None,
        file_runs,
        dir_runs,
    )
    if not node.flawed and _collides(base, node, files, dirs):
        node = msgspec.structs.replace(node, flawed=True)
    in_chunks = len(new_files) > CHUNKED_FROM, len(new_dirs) > CHUNKED_FROM
    data = _encode(
        _Stored(
            _FORMAT,
            node.hash,
            node.size,
            node.flawed,
            node.tag,
            [] if in_chunks[0] else new_files,
            [] if in_chunks[1] else new_dirs,
            [run.key for run in file_runs] if in_chunks[0] else [],
            [run.key for run in dir_runs] if in_chunks[1] else [],
        )
    )
    key = blake3(data).digest()
    rows.append((key, data))
    return key, node, rows


def _file_key(ref: FileRef) -> tuple[str, str]:
    return ref.name, ref.tag


def _dir_key(ref: DirRef) -> str:
    return ref.name


def _revise(
    refs: list[_Ref],
    runs: list[Run],
    changes: Mapping[Any, _Ref | None],
    key_of: Callable[[_Ref], Any],
    rows: list[tuple[bytes, bytes]],
) -> tuple[list[_Ref], list[Run]]:
    """A list of entries with changes, and its runs; the chunks that are new are added to `rows`."""
    if not changes:
        return refs, runs
    todo = sorted(changes)
    found: list[_Ref] = []
    kept: list[Run] = []
    if len(refs) <= CHUNKED_FROM:
        found = _merged(refs, changes, todo, key_of)
        if len(found) > CHUNKED_FROM:
            found, whole = [], found
            _cut(whole, True, found, kept, rows)
            return found, kept
        return found, [Run(len(found), b"")] if found else []
    ends = list(accumulate([run.count for run in runs]))
    new_rows: list[tuple[bytes, bytes]] = []
    # The first run and the first change not dealt with, and entries that wait for the end of their chunk.
    at = next_ = 0
    waiting: list[_Ref] = []
    while at < len(runs) and (waiting or next_ < len(todo)):
        hit = at
        if not waiting:
            hit = bisect_left(ends, todo[next_], at, key=lambda end: key_of(refs[end - 1]))
            # What comes after all runs belongs to the last.
            hit = min(hit, len(runs) - 1)
        begin = ends[hit - 1] if hit else 0
        found += refs[ends[at - 1] if at else 0 : begin]
        kept += runs[at:hit]
        old = refs[begin : ends[hit]]
        final = hit == len(runs) - 1
        behind = len(todo) if final else bisect_right(todo, key_of(old[-1]), next_)
        waiting += _merged(old, changes, todo[next_:behind], key_of)
        waiting = _cut(waiting, final, found, kept, new_rows)
        next_, at = behind, hit + 1
    found += refs[ends[at - 1] :]
    kept += runs[at:]
    if len(found) <= CHUNKED_FROM:
        return found, [Run(len(found), b"")] if found else []
    rows += new_rows
    return found, kept


def _merged(
    refs: list[_Ref], changes: Mapping[Any, _Ref | None], keys: list[Any], key_of: Callable[[_Ref], Any]
) -> list[_Ref]:
    """Entries with the changes at `keys`, sorted."""
    if not keys:
        return refs
    if not refs:
        return [ref for ref in map(changes.__getitem__, keys) if ref is not None]
    merged: dict[Any, _Ref | None] = {key_of(ref): ref for ref in refs}
    merged.update((key, changes[key]) for key in keys)
    return [ref for _, ref in sorted(merged.items(), key=itemgetter(0)) if ref is not None]


def _cut(
    refs: list[_Ref], final: bool, found: list[_Ref], runs: list[Run], rows: list[tuple[bytes, bytes]]
) -> list[_Ref]:
    """Move entries to `found`, in chunks that are added to `runs` and `rows`; what is left has no end yet.

    Nothing is left when these are the `final` entries of the directory.
    """
    start = 0
    crc = zlib.crc32
    for end, ref in enumerate(refs, 1):
        if not crc(ref.name.encode()) & _CHUNK_MASK or (final and end == len(refs)):
            data = _encode(refs[start:end])
            key = blake3(data).digest()
            rows.append((key, data))
            runs.append(Run(end - start, key))
            start = end
    found += refs[:start]
    return refs[start:]


def _summed(runs: list[Run], refs: list[_Ref], sum_up: Callable[[Run, list[_Ref]], None]) -> list[Run]:
    """The runs, each with what follows from its entries."""
    start = 0
    for run in runs:
        if run.hashed is None:
            sum_up(run, refs[start : start + run.count])
        start += run.count
    return runs


def _sum_files(run: Run, refs: list[FileRef]) -> None:
    parts: list[bytes] = []
    size = 0
    previous = ""
    for file in refs:
        name = file.name
        parts += (b"f", name.encode(), b"\0", file.object)
        size += file.size
        if name == previous:
            run.flawed = True
        previous = name
    run.size = size
    run.tags = frozenset([file.tag for file in refs])
    # Last: other threads may look at this run.
    run.hashed = b"".join(parts)


def _sum_dirs(run: Run, refs: list[DirRef]) -> None:
    parts: list[bytes] = []
    for directory in refs:
        parts += (b"d", directory.name.encode(), b"\0", directory.hash)
    run.size = sum([directory.size for directory in refs])
    run.flawed = any(directory.flawed for directory in refs)
    run.tags = frozenset([directory.tag for directory in refs])
    run.hashed = b"".join(parts)


def _collides(base: Node, new: Node, files: FileChanges, dirs: DirChanges) -> bool:
    """Whether a name is there twice: under several tags, or as a file and a directory."""
    start = 0
    for run in new.file_runs[:-1]:
        start += run.count
        if new.files[start - 1].name == new.files[start].name:
            return True
    if not new.files or not new.dirs:
        return False
    changed = {name for name, _ in files} | dirs.keys()
    if not base.flawed and len(changed) << 4 < len(new.files) + len(new.dirs):
        return any(find(new.files, name) and find(new.dirs, name) for name in changed)
    return not {ref.name for ref in new.files}.isdisjoint([ref.name for ref in new.dirs])


def find(refs: list[_Ref], name: str) -> _Ref | None:
    """The (first) entry of a name."""
    at = bisect_left(refs, name, key=attrgetter("name"))
    return refs[at] if at < len(refs) and refs[at].name == name else None


def find_file(node: Node, name: str, tag: str) -> FileRef | None:
    """The file of a name under a tag (in its stored form)."""
    at = bisect_left(node.files, (name, tag), key=_file_key)
    ref = node.files[at] if at < len(node.files) else None
    return ref if ref is not None and ref.name == name and ref.tag == tag else None


def decode(data: bytes, fetch: Fetch) -> Node:
    """The node that `data` encodes; `fetch` gets its chunks, if it has any."""
    stored = _decode_node(data)
    if stored.format != _FORMAT:
        raise Internal(f"a directory is stored in format {stored.format}, this version reads {_FORMAT}")
    files, file_runs = _read(stored.files, stored.file_chunks, _decode_files, fetch)
    dirs, dir_runs = _read(stored.dirs, stored.dir_chunks, _decode_dirs, fetch)
    return Node(files, dirs, stored.hash, stored.size, stored.flawed, stored.tag, file_runs, dir_runs)


def _read(
    refs: list[_Ref], chunks: list[bytes], decode_chunk: Callable[[bytes], list[_Ref]], fetch: Fetch
) -> tuple[list[_Ref], list[Run]]:
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
