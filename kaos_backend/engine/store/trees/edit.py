"""Changing a tree: operations on drafts of the directories they touch, then one new root.

A file in a draft is a list of pieces, because adding to a file appends; pieces become one object when the
tree is written (`write`). Directories that no operation enters are carried over by reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.trees.nodes import (
    CHUNKED_FROM,
    EMPTY,
    DirRef,
    FileRef,
    Load,
    Node,
    find,
    find_file,
    stored_tag,
)
from kaos_backend.engine.store.trees.revise import DirChanges, revise
from kaos_backend.engine.store.trees.tree import files_named, find_dir, root_node, split

Piece = tuple[bytes, int]
"""(object hash, size in bytes)."""
Pieces = tuple[Piece, ...]
Concat = Callable[[Pieces], Piece]
"""Makes one object of several, all of them known and none empty."""


@dataclass(frozen=True, slots=True)
class Put:
    """Append an object to (path, tag), making the file if needed; an empty one just makes it."""

    path: str
    tag: str
    object: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove (path, tag); with a trailing slash a directory, whatever its tags; ``/`` is everything."""

    path: str
    tag: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the file or directory `src` of a tree to `dst`, by reference.

    `source` is the commit to read (resolved when the operation is applied), or a tree already resolved.
    """

    dst: str
    tag: str
    source: CommitKey | bytes | None
    src: str
    src_tag: str
    append: bool


@dataclass(frozen=True, slots=True)
class Overlay:
    """Append everything of another tree, tags kept."""

    root: bytes | None


Operation = Put | Delete | Copy | Overlay


@dataclass(slots=True)
class _Draft:
    """A directory being changed: what it was, and what is other than that (None: gone)."""

    base: Node = EMPTY
    files: dict[tuple[str, str], Pieces | None] = field(default_factory=dict)
    dirs: dict[str, DirRef | _Draft | None] = field(default_factory=dict)

    def file(self, key: tuple[str, str]) -> Pieces | None:
        if key in self.files:
            return self.files[key]
        ref = find_file(self.base, *key) if self.base.files else None
        return None if ref is None else ((ref.object, ref.size),)

    def directory(self, name: str) -> DirRef | _Draft | None:
        if name in self.dirs:
            return self.dirs[name]
        return find(self.base.dirs, name) if self.base.dirs else None


class Written(NamedTuple):
    """A tree that was changed: its root (None: empty), the rows to store, and what is stored in chunks."""

    root: bytes | None
    rows: list[tuple[bytes, bytes]]
    wide: list[tuple[bytes, Node]]


class TreeEditor:
    """A tree being changed. Nothing is stored before `write`.

    Tags are taken as users write them and kept in their stored form.
    """

    def __init__(self, load: Load, root: bytes | None) -> None:
        self._load = load
        self._root = _Draft(root_node(load, root))
        # Runs of operations mostly stay in one directory; remember where the last one was.
        self._last_parent: str | None = None
        self._last_draft = self._root

    def put(self, path: str, tag: str, object_: bytes, size: int) -> None:
        parent, _, name = path.rpartition("/")
        if parent == self._last_parent:
            draft = self._last_draft
        else:
            draft = self._enter(split(parent))
            self._last_parent, self._last_draft = parent, draft
        key = (name, stored_tag(tag))
        existing = draft.file(key)
        if existing is None:
            draft.files[key] = ((object_, size),)
        elif size:
            draft.files[key] = _joined(existing, ((object_, size),))

    def delete(self, path: str, tag: str) -> None:
        names = split(path)
        self._last_parent = None
        if not names:
            self._root = _Draft()
            return
        parent = self._find(names[:-1])
        if parent is None:
            return
        if path.endswith("/"):
            parent.dirs[names[-1]] = None
        else:
            parent.files[names[-1], stored_tag(tag)] = None

    def copy(self, dst: str, tag: str, root: bytes | None, src: str, src_tag: str, append: bool) -> None:
        """Copy what is at `src` of another tree to `dst`, under `tag`; nothing there, nothing done."""
        self._last_parent = None
        names = split(src)
        parent = find_dir(self._load, root, names[:-1])
        if parent is None or root is None:
            return
        files = files_named(parent, names[-1]) if names else []
        if src_tag:
            files = [ref for ref in files if ref.tag == stored_tag(src_tag)]
        if files and not src.endswith("/"):
            target = split(dst)
            if not target:
                return
            draft = self._enter(target[:-1])
            if not append:
                draft.files[target[-1], stored_tag(tag)] = None
            for ref in files:
                self._add(draft, target[-1], stored_tag(tag), ((ref.object, ref.size),))
            return
        node = find_dir(self._load, root, names)
        if node is not None:
            self._overlay(self._enter(split(dst)), node, stored_tag(tag), append)

    def overlay(self, root: bytes | None, append: bool = False) -> None:
        """Lay another tree over this one, tags kept; the same (path, tag) is replaced, or appended to."""
        self._last_parent = None
        self._overlay(self._root, root_node(self._load, root), None, append)

    def subtract(self, root: bytes) -> None:
        """Remove the files that another tree has, by their paths and tags."""
        self._last_parent = None
        todo = [(self._root, self._load(root))]
        for draft, node in todo:
            for ref in node.files:
                draft.files[ref.name, ref.tag] = None
            for directory in node.dirs:
                there = draft.directory(directory.name)
                if isinstance(there, DirRef) and there.key == directory.key:
                    draft.dirs[directory.name] = None
                elif there is not None:
                    todo.append((self._open(draft, directory.name), self._load(directory.key)))

    def graft(self, path: str, root: bytes | None, src: str) -> None:
        """Put the file or directory at `src` of another tree at `path`, tags kept, by reference."""
        self._last_parent = None
        names, target = split(src), split(path)
        parent = find_dir(self._load, root, names[:-1])
        if parent is None:
            return
        if names and target:
            for ref in files_named(parent, names[-1]):
                self._enter(target[:-1]).files[target[-1], ref.tag] = ((ref.object, ref.size),)
        found = self._reference(parent, root, names, target[-1] if target else "")
        if found is None:
            return
        above = self._enter(target[:-1])
        if target and above.directory(target[-1]) is None:
            above.dirs[target[-1]] = found
        else:
            self._overlay(self._enter(target), self._load(found.key), None, append=False)

    def _reference(self, parent: Node, root: bytes | None, names: list[str], as_: str) -> DirRef | None:
        """The directory at `names` of the tree `root`, below `parent` there, under the name `as_`."""
        if names:
            found = find(parent.dirs, names[-1])
            return None if found is None else replace(found, name=as_)
        if root is None:
            return None
        return DirRef(as_, root, parent.hash, parent.size, parent.flawed, parent.tag)

    def write(self, concat: Concat) -> Written:
        """The new tree."""
        new = Written(None, [], [])
        drafts = [("", self._root)]
        for _, draft in drafts:
            drafts += [(name, child) for name, child in draft.dirs.items() if isinstance(child, _Draft)]
        # From the leaves to the root, each after what is below it.
        written: dict[int, DirRef | None] = {}
        for name, draft in reversed(drafts):
            dirs = {
                below: written[id(child)] if isinstance(child, _Draft) else child
                for below, child in draft.dirs.items()
            }
            written[id(draft)] = _write_directory(name, draft, dirs, concat, new)
        ref = written[id(self._root)]
        return new._replace(root=None if ref is None else ref.key)

    def _overlay(self, onto: _Draft, from_: Node, tag: str | None, append: bool) -> None:
        """Add everything of a node to a draft, under `tag` (None: tags as they are)."""
        todo = [(onto, from_)]
        for draft, node in todo:
            for ref in node.files:
                new_tag = ref.tag if tag is None else tag
                if not append:
                    draft.files[ref.name, new_tag] = None
            for ref in node.files:
                self._add(draft, ref.name, ref.tag if tag is None else tag, ((ref.object, ref.size),))
            for directory in node.dirs:
                there = draft.directory(directory.name)
                same_tag = tag is None or directory.tag == tag
                if there is None and same_tag:
                    draft.dirs[directory.name] = directory
                elif same_tag and not append and isinstance(there, DirRef) and there.key == directory.key:
                    continue
                else:
                    todo.append((self._open(draft, directory.name), self._load(directory.key)))

    @staticmethod
    def _add(draft: _Draft, name: str, tag: str, pieces: Pieces) -> None:
        existing = draft.file((name, tag))
        draft.files[name, tag] = pieces if existing is None else _joined(existing, pieces)

    def _enter(self, names: list[str]) -> _Draft:
        draft = self._root
        for name in names:
            draft = self._open(draft, name)
        return draft

    def _open(self, draft: _Draft, name: str) -> _Draft:
        """The draft of a subdirectory, made of what is there, or new."""
        child = draft.directory(name)
        if isinstance(child, _Draft):
            return child
        child = _Draft() if child is None else _Draft(self._load(child.key))
        draft.dirs[name] = child
        return child

    def _find(self, names: list[str]) -> _Draft | None:
        """As `_enter`, but a directory that is not there is not made."""
        draft = self._root
        for name in names:
            if draft.directory(name) is None:
                return None
            draft = self._open(draft, name)
        return draft


def _write_directory(
    name: str, draft: _Draft, dirs: DirChanges, concat: Concat, new: Written
) -> DirRef | None:
    """The reference to a directory whose subdirectories are written; None when it is empty."""
    files: dict[tuple[str, str], FileRef | None] = {}
    for at, pieces in draft.files.items():
        if pieces is None:
            files[at] = None
        else:
            files[at] = FileRef(*at, *(pieces[0] if len(pieces) == 1 else concat(pieces)))
    key, node, rows = revise(draft.base, files, dirs)
    if not node.files and not node.dirs:
        return None
    new.rows.extend(rows)
    if len(node.files) > CHUNKED_FROM or len(node.dirs) > CHUNKED_FROM:
        new.wide.append((key, node))
    return DirRef(name, key, node.hash, node.size, node.flawed, node.tag)


def _joined(first: Pieces, second: Pieces) -> Pieces:
    pieces = tuple(piece for piece in (*first, *second) if piece[1])
    return pieces or first[:1]
