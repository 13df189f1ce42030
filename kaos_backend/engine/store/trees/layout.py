"""Trees on disk: written out anew, or made from an earlier version by taking over what is the same.

What is the same is told by the keys of directories and the hashes of files: nothing on disk is read for it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, DataLoss, NotFound, Unknown, disk_full
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, LOOSE_BYTES, Location, ObjectStore, locate
from kaos_backend.engine.store.trees.nodes import EMPTY, DirRef, FileRef, Node
from kaos_backend.engine.store.trees.tree import files_named, find_dir, split

FILE_MODE, FOLDER_MODE = 0o444, 0o555
"""One mode for all inputs: files of several trees may be one inode."""
_AT_A_TIME = 500
_BLOCK_BYTES = 4096
_FEW, _FEW_BYTES = 8, 64 << 10

Place = Callable[[str], str | None]
"""The path in a tree → the path on disk; None for what is not laid out."""


class Store(Protocol):
    """What of the store is needed to lay out its trees."""

    objects: ObjectStore

    def load(self, key: bytes) -> Node: ...

    def read(self) -> AbstractContextManager[sqlite3.Connection]: ...


@dataclass(frozen=True, slots=True)
class Tree:
    """The file or directory at `path` of the tree `root`. `place`: where files go that do not go there."""

    root: bytes
    path: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """A tree in `folder` as it was laid out, from which another one is made.

    `move`: what is the same is moved out of it, which is all that is left of it then; otherwise it gets
    another name (hard link). `linked`: the objects whose files are those of the store, with their inodes;
    `stale`: those of which the store has, or wants, another file by now.
    """

    tree: Tree
    folder: Path
    move: bool
    linked: Mapping[bytes, int] = field(default_factory=dict)
    stale: Collection[bytes] = ()


@dataclass(slots=True)
class Laid:
    """What was laid out: the bytes written for it, and the objects whose files are those of the store, with
    their inodes."""

    written: int = 0
    linked: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Step:
    """One directory: the files to take from the base's directory `before`, and those to write.

    `whole`: subdirectories (name, its name in the base) that are taken as they are.
    """

    prefix: str
    before: str
    take: Sequence[FileRef]
    write: Sequence[FileRef]
    whole: Sequence[tuple[DirRef, str]] = ()


class Layout:
    """A tree on its way to the disk.

    Args:
        link: large objects get another name there instead of a copy. Only where nobody can write to them.
    """

    def __init__(self, store: Store, tree: Tree, base: Base | None = None, *, link: bool = False) -> None:
        """Raises NotFound: `tree.path` is not in the tree. DataLoss: a listing is damaged."""
        self._store = store
        self._tree = tree
        self._base = base
        self._link = link
        self._top = _top(store, tree)

    @property
    def is_small(self) -> bool:
        """Whether it is written as fast as it would be found elsewhere: a few files in one folder."""
        top = self._top[1]
        return not top.dirs and len(top.files) <= _FEW and sum(ref.size for ref in top.files) <= _FEW_BYTES

    def contents(self, most: int, most_bytes: int) -> dict[str, bytes] | None:
        """The files by the paths at which `write` would put them.

        None if there are more than so many files or folders, more bytes, or folders without a file.

        Raises:
            DataLoss: content is damaged or gone; the error names its path.
        """
        files: list[tuple[str, FileRef]] = []
        folders: list[str] = []
        for step in self._steps():
            folders.append(step.prefix)
            files += ((step.prefix + ref.name, ref) for ref in step.write)
            size = sum(ref.size for _, ref in files)
            if max(len(files), len(folders)) > most or size > most_bytes:
                return None
        if not all(any(path.startswith(folder) for path, _ in files) for folder in folders):
            return None
        place = self._tree.place
        with self._store.read() as db:
            places = locate(db, {ref.object for _, ref in files})
            return {
                target: self._small(db, places, path, ref)
                for path, ref in files
                if (target := path if place is None else place(path)) is not None
            }

    def _small(
        self, db: sqlite3.Connection, places: Mapping[bytes, Location], path: str, ref: FileRef
    ) -> bytes:
        objects = self._store.objects
        try:
            return b"" if ref.object == EMPTY_HASH else objects.small(db, objects.require(places, ref.object))
        except DataLoss as error:
            raise error.at(path) from error

    def bytes_needed(self) -> int:
        """What of the disk it takes, in bytes and about. Raises DataLoss: a listing is damaged."""
        needed = 0
        for step in self._steps():
            needed += _BLOCK_BYTES + sum(
                -(-ref.size // _BLOCK_BYTES) * _BLOCK_BYTES
                for ref in step.write
                if not (self._link and ref.size >= LOOSE_BYTES)
            )
        return needed

    def write(self, dest: Path) -> Laid:
        """Lay it out in `dest`, a folder that is empty and of nobody's concern yet; read-only in the end.

        Nothing is synced. After an error, `dest` (and a base that is moved) is to be removed.

        Raises:
            DataLoss: content is damaged or gone; the error names its path.
            Unknown: a name is too long for this disk.
            DiskFull: the disk is full.
        """
        try:
            return _Writer(self._store, self._tree, self._base, dest, link=self._link).write(self._steps())
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise disk_full(str(dest)) from error
            if error.errno == errno.ENAMETOOLONG:
                raise Unknown(f"{error.filename}: a name is too long for a file on disk") from error
            raise

    def _steps(self) -> Iterator[_Step]:
        """Each directory, those above before those below."""
        prefix, node = self._top
        before, old = ("", None) if self._base is None else _top(self._store, self._base.tree)
        base = self._base
        at_once = base is not None and base.move and base.tree.place is None and self._tree.place is None
        todo: list[tuple[str, Node, str, Node | None]] = [(prefix, node, before, old)]
        load = self._store.load
        while todo:
            prefix, node, before, old = todo.pop()
            take, write = _split(node.files, old.files if old is not None else ())
            whole = []
            for ref, twin in _pair(node.dirs, old.dirs if old is not None else ()):
                if at_once and twin is not None and twin.key == ref.key:
                    whole.append((ref, twin.name))
                    continue
                below = None if twin is None else load(twin.key)
                theirs = "" if twin is None else f"{before}{twin.name}/"
                todo.append((f"{prefix}{ref.name}/", load(ref.key), theirs, below))
            yield _Step(prefix, before, take, write, whole)


def _top(store: Store, tree: Tree) -> tuple[str, Node]:
    """(the path of the directory where it begins, what of that is laid out)."""
    names = split(tree.path)
    above = "/" + "".join(f"{name}/" for name in names[:-1])
    if names:
        parent = find_dir(store.load, tree.root, names[:-1]) or EMPTY
        if files := files_named(parent, names[-1]):
            return above, msgspec.structs.replace(EMPTY, files=files)
    found = find_dir(store.load, tree.root, names)
    if found is None:
        raise NotFound(f"file {tree.path} not found")
    return above + "".join(f"{name}/" for name in names[-1:]), found


def _split(files: Sequence[FileRef], old: Sequence[FileRef]) -> tuple[Sequence[FileRef], Sequence[FileRef]]:
    """(those that are the same in `old`, the others)."""
    if not old:
        return (), files
    if files is old:
        return files, ()
    known = {ref.name: ref.object for ref in old}
    same: list[FileRef] = []
    other: list[FileRef] = []
    for ref in files:
        (same if known.get(ref.name) == ref.object else other).append(ref)
    return same, other


def _pair(dirs: Sequence[DirRef], old: Sequence[DirRef]) -> Iterator[tuple[DirRef, DirRef | None]]:
    """Each of `dirs` with what it was before: what has its name, its content, or is alone without another.

    The folder of a bundle is called after its content, so the top of each version has another name.
    """
    by_name = {ref.name: ref for ref in old}
    new = {ref.name for ref in dirs}
    gone = {ref.key: ref for ref in old if ref.name not in new}
    come = [ref for ref in dirs if ref.name not in by_name]
    last = next(iter(gone.values())) if len(gone) == len(come) == 1 else None
    for ref in dirs:
        # What is moved can be taken once only.
        yield ref, by_name.get(ref.name) or gone.pop(ref.key, None) or last


class _Writer:
    def __init__(self, store: Store, tree: Tree, base: Base | None, dest: Path, *, link: bool) -> None:
        self._store, self._base, self._link = store, base, link
        self._dest = str(dest)
        self._place = tree.place
        self._directories = {self._dest: None}
        self._pending: list[tuple[str, str, bytes]] = []
        self._laid = Laid()
        # One mode for all, whatever the umask is: the first file shows.
        self._chmod: bool | None = None

    def write(self, steps: Iterator[_Step]) -> Laid:
        for step in steps:
            if self._place is None:
                self._make_directory(self._dest + step.prefix[:-1])
            self._take(step)
            for ref in step.write:
                self._later(step.prefix, ref)
            for folder, name in step.whole:
                self._take_whole(step, folder, name)
        self._flush()
        for directory in reversed(self._directories):
            os.chmod(directory, FOLDER_MODE)  # noqa: PTH101
        return self._laid

    def _take(self, step: _Step) -> None:
        base = self._base
        if base is None or not step.take:
            return
        theirs, old_place, place = str(base.folder), base.tree.place, self._place
        if base.move and old_place is None:
            _open_up(theirs + step.before)
        do = os.rename if base.move else os.link
        for ref in step.take:
            source: str | None = step.before + ref.name
            target: str | None = step.prefix + ref.name
            if old_place is not None:
                source = old_place(step.before + ref.name)
            if place is not None:
                target = place(step.prefix + ref.name)
                if target is not None:
                    self._make_directory((self._dest + target).rpartition("/")[0])
            if target is None:
                continue
            try:
                if source is None or ref.object in base.stale:
                    raise FileNotFoundError
                do(theirs + source, self._dest + target)
            except OSError:
                # As many names as an inode can have, or not there: what is stored serves as well.
                self._later(step.prefix, ref)
                continue
            if ref.object in base.linked:
                self._laid.linked[ref.object] = base.linked[ref.object]

    def _take_whole(self, step: _Step, ref: DirRef, name: str) -> None:
        assert self._base is not None
        source, target = f"{self._base.folder}{step.before}{name}", f"{self._dest}{step.prefix}{ref.name}"
        # One that may not be written to cannot get another parent.
        _open_up(source)
        _open_up(f"{self._base.folder}{step.before}")
        os.rename(source, target)  # noqa: PTH104
        self._directories[target] = None

    def _later(self, prefix: str, ref: FileRef) -> None:
        path: str | None = prefix + ref.name
        if self._place is not None:
            path = self._place(prefix + ref.name)
            if path is None:
                return
            self._make_directory((self._dest + path).rpartition("/")[0])
        self._pending.append((self._dest + str(path), prefix + ref.name, ref.object))
        if len(self._pending) >= _AT_A_TIME:
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        with self._store.read() as db:
            places = locate(db, {hash_ for _, _, hash_ in pending})
            for target, path, hash_ in pending:
                try:
                    self._write_file(db, places, hash_, target)
                except DataLoss as error:
                    raise error.at(path) from error

    def _write_file(
        self, db: sqlite3.Connection, places: Mapping[bytes, Location], hash_: bytes, target: str
    ) -> None:
        objects = self._store.objects
        at = None if hash_ == EMPTY_HASH else objects.require(places, hash_)
        if self._link and at is not None and (inode := objects.link_out(at, target)) is not None:
            self._laid.linked[hash_] = inode
            return
        fd = _create(target)
        try:
            if self._chmod is None:
                self._chmod = os.fstat(fd).st_mode & 0o777 != FILE_MODE
            if self._chmod:
                os.fchmod(fd, FILE_MODE)
            if at is not None:
                objects.copy_out(db, at, fd)
                self._laid.written += at.length
        finally:
            os.close(fd)

    def _make_directory(self, path: str) -> None:
        missing = []
        while path not in self._directories:
            missing.append(path)
            path = path.rpartition("/")[0]
        for one in reversed(missing):
            os.mkdir(one, 0o755)  # noqa: PTH102
            self._directories[one] = None


def _open_up(folder: str) -> None:
    os.chmod(folder, 0o700)  # noqa: PTH101


def _create(path: str) -> int:
    """A new file. One of the same name, written under another tag, goes: it may be a name of the store's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, FILE_MODE)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108
        return os.open(path, flags, FILE_MODE)
