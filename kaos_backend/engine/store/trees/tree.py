"""File trees: immutable directories that name their content, and how to read them.

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
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final, TypeVar

import msgspec
from blake3 import blake3

from kaos_backend.engine.errors import Internal, NotFound
from kaos_backend.engine.store.model import DEFAULT_TAG, FileEntry

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


def split(path: str) -> list[str]:
    """The names along a path; the root has none."""
    return [name for name in path.split("/") if name]


def root_node(load: Load, root: bytes | None) -> Node:
    return EMPTY if root is None else load(root)


def find_dir(load: Load, root: bytes | None, names: list[str]) -> Node | None:
    """The directory at `names`, None when there is none."""
    node = root_node(load, root)
    for name in names:
        ref = _search(node.dirs, name)
        if ref is None:
            return None
        node = load(ref.key)
    return node


def _search(refs: list[_Ref], name: str) -> _Ref | None:
    low, high = 0, len(refs)
    while low < high:
        middle = (low + high) // 2
        if refs[middle].name < name:
            low = middle + 1
        else:
            high = middle
    return refs[low] if low < len(refs) and refs[low].name == name else None


def files_named(node: Node, name: str) -> list[FileRef]:
    """The entries of one file name: one, or several when several tags wrote it."""
    first = _search(node.files, name)
    if first is None:
        return []
    if not node.flawed:
        return [first]
    return [ref for ref in node.files if ref.name == name]


def file_entry(parent: str, ref: FileRef) -> FileEntry:
    return FileEntry(parent + ref.name, "file", ref.size, ref.object, ref.tag or DEFAULT_TAG)


def dir_entry(parent: str, ref: DirRef) -> FileEntry:
    return FileEntry(f"{parent}{ref.name}/", "dir", ref.size, ref.hash)


def look_up(load: Load, root: bytes | None, path: str, tag: str | None = None) -> list[FileEntry]:
    """What is at `path`: the file entries (of one tag when given), else the directory, else nothing.

    A trailing slash does not matter. The root of an empty tree does not exist.
    """
    names = split(path)
    if not names:
        if root is None:
            return []
        node = load(root)
        return [FileEntry("/", "dir", node.size, node.hash)]
    parent_names = names[:-1]
    parent = find_dir(load, root, parent_names)
    if parent is None:
        return []
    prefix = "/" + "".join(f"{name}/" for name in parent_names)
    entries = [
        file_entry(prefix, ref)
        for ref in files_named(parent, names[-1])
        if tag is None or ref.full_tag == tag
    ]
    if not entries and tag is None:
        directory = _search(parent.dirs, names[-1])
        if directory is not None:
            entries = [dir_entry(prefix, directory)]
    return entries


def stat(load: Load, root: bytes | None, path: str, tag: str | None = None) -> FileEntry:
    """The one entry at `path`.

    Raises:
        NotFound: nothing is there.
    """
    entries = look_up(load, root, path, tag)
    if not entries:
        raise NotFound(f"file {'/' + '/'.join(split(path))} not found")
    return entries[0]


def children(node: Node) -> Iterator[FileRef | DirRef]:
    """The entries of a directory in the order of their paths, in which a directory's ends in a slash."""
    files, dirs = node.files, node.dirs
    if not dirs:
        yield from files
        return
    if not files:
        yield from sorted(dirs, key=_dir_order)
        return
    both: list[FileRef | DirRef] = [*files, *dirs]
    both.sort(key=_path_order)
    yield from both


def _dir_order(ref: DirRef) -> str:
    return ref.name + "/"


def _path_order(ref: FileRef | DirRef) -> str:
    return ref.name + "/" if isinstance(ref, DirRef) else ref.name


def list_dir(load: Load, root: bytes | None, path: str) -> Iterator[FileEntry]:
    """The children of a directory, sorted; for a file, itself; for what is missing, nothing."""
    names = split(path)
    node = find_dir(load, root, names)
    prefix = "/" + "".join(f"{name}/" for name in names)
    if names:
        files = [entry for entry in look_up(load, root, path) if entry.kind == "file"]
        if files:
            yield from files
            return
    if node is not None:
        for ref in children(node):
            yield dir_entry(prefix, ref) if isinstance(ref, DirRef) else file_entry(prefix, ref)


def walk(load: Load, root: bytes | None, path: str = "/") -> Iterator[FileEntry]:
    """Everything at and below `path`, depth first in the order of paths, directories included.

    Raises:
        NotFound: `path` is not in the tree (the root of an empty tree yields nothing instead).
    """
    names = split(path)
    if not names and root is None:
        return
    entry = stat(load, root, path)
    yield entry
    if entry.kind == "file":
        yield from look_up(load, root, path)[1:]
        return
    node = find_dir(load, root, names)
    if node is not None:
        yield from walk_node(load, node, entry.path)


def walk_node(load: Load, node: Node, prefix: str) -> Iterator[FileEntry]:
    """Everything below a directory whose path is `prefix` (ends in a slash)."""
    stack = [(prefix, children(node))]
    while stack:
        prefix, refs = stack[-1]
        for ref in refs:
            if isinstance(ref, DirRef):
                entry = dir_entry(prefix, ref)
                yield entry
                stack.append((entry.path, children(load(ref.key))))
                break
            yield FileEntry(prefix + ref.name, "file", ref.size, ref.object, ref.tag or DEFAULT_TAG)
        else:
            stack.pop()


def find_flaw(load: Load, root: bytes | None) -> str:
    """Why a tree cannot be a finished commit, in words; empty when it can."""
    path, node = "/", root_node(load, root)
    while node.flawed:
        names: set[str] = set()
        for ref in node.files:
            if ref.name in names:
                return f"duplicate path output by different datums ({path}{ref.name})"
            names.add(ref.name)
        for directory in node.dirs:
            if directory.name in names:
                return f"file / directory path collision ({path}{directory.name})"
        deeper = next(directory for directory in node.dirs if directory.flawed)
        path, node = f"{path}{deeper.name}/", load(deeper.key)
    return ""


def diff(
    load: Load, new: bytes | None, old: bytes | None, path: str = "/"
) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
    """The paths at and below `path` at which two trees differ, sorted, directories included.

    Each item is (new, old), either of them None when that side has nothing there. Equal subtrees are not
    entered.
    """
    names = split(path)
    for after, before in _differences(look_up(load, new, path), look_up(load, old, path)):
        yield after, before
        top = after or before
        if top is not None and top.kind == "dir":
            left = find_dir(load, new, names) if after is not None else None
            right = find_dir(load, old, names) if before is not None else None
            yield from _diff_nodes(load, left or EMPTY, right or EMPTY, top.path)


def _diff_nodes(
    load: Load, new: Node, old: Node, prefix: str
) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
    """As `diff`, for what lies below two directories at the same path."""
    stack = [(_differences(_entries(new, prefix), _entries(old, prefix)), new, old)]
    while stack:
        differences, new, old = stack[-1]
        for after, before in differences:
            yield after, before
            top = after or before
            if top is not None and top.kind == "dir":
                name = top.path[:-1].rpartition("/")[2]
                new, old = _child(load, new, name), _child(load, old, name)
                below = _differences(_entries(new, top.path), _entries(old, top.path))
                stack.append((below, new, old))
                break
        else:
            stack.pop()


def _entries(node: Node, prefix: str) -> list[FileEntry]:
    return [*(file_entry(prefix, ref) for ref in node.files), *(dir_entry(prefix, ref) for ref in node.dirs)]


def _child(load: Load, node: Node, name: str) -> Node:
    """A subdirectory, empty when there is none."""
    ref = _search(node.dirs, name)
    return EMPTY if ref is None else load(ref.key)


def _differences(
    news: list[FileEntry], olds: list[FileEntry]
) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
    """(new, old) for every path of one directory at which two trees differ, sorted."""
    left = {(entry.path, entry.tag): entry for entry in news}
    right = {(entry.path, entry.tag): entry for entry in olds}
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key), right.get(key)
        if a is None or b is None or a.hash != b.hash:
            yield a, b
