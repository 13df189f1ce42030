"""Reading file trees: what is at a path, below it, where two differ. Stored they are as `nodes`.

A tree is the key of its root's node, None where there is no file at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.store.model import DEFAULT_TAG, FileEntry
from kaos_backend.engine.store.trees.nodes import EMPTY, DirRef, FileRef, Load, Node, find


def split(path: str) -> list[str]:
    """The names along a path; the root has none."""
    return [name for name in path.split("/") if name]


def root_node(load: Load, root: bytes | None) -> Node:
    return EMPTY if root is None else load(root)


def find_dir(load: Load, root: bytes | None, names: list[str]) -> Node | None:
    """The directory at `names`, None when there is none."""
    node = root_node(load, root)
    for name in names:
        ref = find(node.dirs, name)
        if ref is None:
            return None
        node = load(ref.key)
    return node


def files_named(node: Node, name: str) -> list[FileRef]:
    """The entries of one file name: one, or several when several tags wrote it."""
    first = find(node.files, name)
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
        directory = find(parent.dirs, names[-1])
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
    ref = find(node.dirs, name)
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
