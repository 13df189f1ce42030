"""Inputs on disk, one copy for every datum, job and pipeline that reads the same content at the same path.

Another version of a tree is made from the last one: what is the same is linked where no code can write to it,
so that the file of one tree (and of the store) may be that of another; elsewhere it is moved out of the last
one, once nobody uses that any more.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from kaos_backend.engine.errors import DataLoss, DiskFull, EngineError, NotFound
from kaos_backend.engine.jobs.db.lifecycle import commit_of
from kaos_backend.engine.jobs.run import seals
from kaos_backend.engine.jobs.run.laidout import Entry, LaidOut, Usage
from kaos_backend.engine.jobs.run.names import place_of_inputs
from kaos_backend.engine.jobs.run.seals import Seal
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import CommitKey, FileSource, Subtree
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.layout import Base, Laid, Layout, Tree
from kaos_backend.engine.workers.port import SmallInput
from kaos_formats.folders import clean_up
from kaos_formats.quantity import format_bytes

_VERSION = b"1"
_LOCKS = 64
# Up to these an input is no folder that is laid out, but written by each worker where it is wanted.
_SMALL_FILES = 64
_SMALL_BYTES = 256 << 10
_NAME_BYTES = 255
# So many of them a job remembers: those that all its datums have, beside those that run.
_REMEMBERED = 32
# A folder whose name follows from its content: the next version of it has another one.
_CONTENT_ID = re.compile(r"(?<=/)[0-9a-f]{32}(?=/|$)")

log = logging.getLogger(__name__)

RootOf = Callable[[File], bytes]
"""The tree of a file's commit."""


class NeverFits(EngineError):
    """Inputs for which there never is room on this disk."""


def input_key(files: Sequence[File]) -> str:
    """64 hex digits over (path, content hash) of everything one input delivers to one datum."""
    digest = hashlib.blake2b(_VERSION, digest_size=32)
    for file in sorted(files, key=lambda f: f.path):
        path = file.path.encode()
        digest.update(len(path).to_bytes(8, "big") + path + file.hash + bytes([file.empty_files]))
    return digest.hexdigest()


def root_of(store: Store, commit: CommitKey) -> bytes:
    """The tree that an input is of. Raises EngineError: the commit is gone, or has no files."""
    root = store.inspect_commit(commit).root
    if root is None:
        raise EngineError(f"commit {commit} has no files")
    return root


def share_of_disk(disk_bytes: int) -> int:
    """How much may be laid out of what no job uses, where nobody says otherwise."""
    return disk_bytes // 5


class InputCache:
    """Materialised inputs below one directory, each beside its seal.

    A seal tells whether code that nothing kept from it has changed an input since it was laid out. It is as
    old as the last use of its entry; an entry that no job has used for a week goes at the next start, and the
    least recently used ones while all take more than `limit_bytes`.

    Args:
        wanted: the commits, as text, whose files jobs read that have not ended.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        now_s: Callable[[], float] = time.time,
        *,
        limit_bytes: int | None = None,
        wanted: Callable[[], set[str]] = set,
    ) -> None:
        self._store = store
        if limit_bytes is None:
            limit_bytes = share_of_disk(shutil.disk_usage(store.root).total)
        self._laid_out = LaidOut(root, store.objects, now_s, limit_bytes, wanted)
        # By key; that two keys may share one costs a wait.
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def open(self) -> None:
        """See `LaidOut.open`."""
        self._laid_out.open()

    def close(self) -> None:
        """Wait for what goes on in the background."""
        self._laid_out.join()

    def usage(self) -> list[Usage]:
        """See `LaidOut.usage`."""
        return self._laid_out.usage()

    def evict(self, excess_bytes: int) -> int:
        """See `LaidOut.evict`."""
        return self._laid_out.evict(excess_bytes)

    def discard(self, unneeded: Callable[[Usage], bool]) -> int:
        """See `LaidOut.discard`."""
        return self._laid_out.discard(unneeded)

    def make_room(self, needed_bytes: int) -> tuple[int, int]:
        """(free bytes of the disk, all it has), after what no job uses has made room where there was none."""
        disk = shutil.disk_usage(self._store.root)
        if disk.free < needed_bytes and self._laid_out.evict(needed_bytes - disk.free):
            disk = shutil.disk_usage(self._store.root)
        return disk.free, disk.total

    def lend(self, *, shared: bool, beside_bytes: int = 0) -> Lent:
        """What one job has of it.

        Args:
            shared: no run of the job can write to its inputs.
            beside_bytes: how much of the disk each of its runs asks for besides.
        """
        return Lent(self, shared=shared, beside_bytes=beside_bytes)

    def take(self, files: Sequence[File], root_of: RootOf, *, shared: bool, beside_bytes: int) -> Entry:
        """The entry of an input, in use until it is given back: `Lent` is how to come by one."""
        key = input_key(files)
        # Datums that start together share one copy; the others wait for it.
        with self._locks[int(key[:8], 16) % _LOCKS]:
            entry = self._laid_out.find(key, shared=shared)
            if entry is not None:
                if self._is_good(entry, files):
                    return entry
                log.warning("%s was changed or damaged and is laid out again", self._laid_out.path(entry))
                self._laid_out.retire(entry)
                self._laid_out.release(entry)
            entry = self._laid_out.new(key, _lineage(files), shared=shared)
            self._make(entry, files, root_of, beside_bytes)
        self._laid_out.tidy()
        return entry

    def small(self, files: Sequence[File], root_of: RootOf, beside_bytes: int) -> SmallInput | None:
        """An input by value; None for one that is too large for that, or of several paths: see `take`."""
        if len(files) > 1 or files[0].empty_files:
            return None
        try:
            with self._store.leases.take():
                found = Layout(self._store, self._only(files[0], root_of)).contents(
                    _SMALL_FILES, _SMALL_BYTES
                )
        except DataLoss as error:
            raise error.at(_holder(files, error.where)) from error
        if found is None or any(len(os.fsencode(name)) > _NAME_BYTES for name in "/".join(found).split("/")):
            return None
        self._find_room(sum(map(len, found.values())), beside_bytes)
        return SmallInput(found)

    def path(self, entry: Entry) -> Path:
        return self._laid_out.path(entry)

    def give_back(self, entry: Entry) -> None:
        self._laid_out.release(entry)

    def tidy(self) -> None:
        """See `LaidOut.tidy`."""
        self._laid_out.tidy()

    def _is_good(self, entry: Entry, files: Sequence[File]) -> bool:
        """Whether an entry is as it was laid out; notes that it is used now."""
        folder = self._laid_out.path(entry)
        seal = self._untouched(entry)
        if seal is None or self._stale(seal):
            return False
        commits = _commits(files)
        if seal.commits != commits:
            seals.write(folder, Seal(seal.root, seal.path, commits, seal.linked, seal.state))
        else:
            os.utime(seals.place(folder))
        return True

    def _untouched(self, entry: Entry) -> Seal | None:
        """The seal of an entry that nobody has changed since it was laid out."""
        folder = self._laid_out.path(entry)
        seal = seals.read(folder)
        if seal is None:
            return None
        if not (entry.shared and entry.checked):
            if not seals.unchanged(folder, seal.state, shared=entry.shared):
                return None
            entry.checked = True
        return seal

    def _stale(self, seal: Seal) -> set[bytes]:
        """Those of a tree's objects of which the store has another file by now: what was damaged gets one."""
        linked = {bytes.fromhex(hash_): inode for hash_, inode in seal.linked.items()}
        stale = {hash_ for hash_, inode in linked.items() if self._store.objects.inode(hash_) != inode}
        return stale | self._store.damage.among(linked)

    # --- laying out

    def _make(self, entry: Entry, files: Sequence[File], root_of: RootOf, beside_bytes: int) -> None:
        folder = self._laid_out.path(entry)
        try:
            # A tree that is made of several inputs is nobody's else.
            with self._store.leases.take():
                tree = self._tree(files, root_of)
                if tree is None:
                    folder.mkdir()
                    tree, laid = Tree(b"", "/"), Laid()
                else:
                    laid = self._lay_out(entry, tree, folder, beside_bytes)
        except DataLoss as error:
            raise error.at(_holder(files, error.where)) from error
        state = seals.state_of(folder, time.time_ns(), shared=entry.shared)
        linked = {hash_.hex(): inode for hash_, inode in laid.linked.items()}
        seals.write(folder, Seal(tree.root.hex(), tree.path, _commits(files), linked, state))
        self._laid_out.add(entry, laid.written)

    def _lay_out(self, entry: Entry, tree: Tree, folder: Path, beside_bytes: int) -> Laid:
        anew = Layout(self._store, tree, link=entry.shared)
        last = None if anew.is_small else self._laid_out.newest(entry.lineage, shared=entry.shared)
        if last is not None:
            try:
                base = self._base(last)
                if base is not None:
                    return self._write(
                        Layout(self._store, tree, base, link=entry.shared), folder, beside_bytes
                    )
            except (DataLoss, DiskFull) as error:
                # Its own tree may be gone, or it is in the way.
                log.info("%s is made anew: %s", folder, error.message)
            finally:
                self._laid_out.release(last)
        return self._write(anew, folder, beside_bytes)

    def _write(self, layout: Layout, folder: Path, beside_bytes: int) -> Laid:
        self._find_room(layout.bytes_needed(), beside_bytes)
        try:
            folder.mkdir(mode=0o755)
            return layout.write(folder)
        except BaseException:
            clean_up(folder)
            raise

    def _base(self, last: Entry) -> Base | None:
        """What was laid out last, if it is as it was then and its tree is still known."""
        folder = self._laid_out.path(last)
        seal = self._untouched(last)
        if seal is None or not seal.root:
            self._laid_out.retire(last)
            return None
        root = bytes.fromhex(seal.root)
        try:
            tree = Tree(root, seal.path, place_of_inputs(self._store, root, seal.path))
        except NotFound:
            return None
        stale = self._stale(seal)
        linked = {bytes.fromhex(hash_): inode for hash_, inode in seal.linked.items()}
        linked = {hash_: inode for hash_, inode in linked.items() if hash_ not in stale}
        return Base(tree, folder, move=not last.shared, linked=linked, stale=stale)

    def _find_room(self, needed_bytes: int, beside_bytes: int) -> None:
        """Raises DiskFull: there is no room now. NeverFits: nor can there ever be."""
        wanted_bytes = needed_bytes + beside_bytes
        disk = shutil.disk_usage(self._store.root)
        if disk.free >= wanted_bytes:
            return
        stored = self._store.stored_bytes()
        if wanted_bytes + stored > disk.total:
            besides = f" and its run asks for {format_bytes(beside_bytes)}" if beside_bytes else ""
            raise NeverFits(
                f"its inputs need {format_bytes(needed_bytes)} of disk{besides}, which never fits: the disk"
                f" has {format_bytes(disk.total)} in all, and what is stored takes {format_bytes(stored)};"
                " move KAOS_HOME to a larger disk"
            )
        free, _ = self.make_room(wanted_bytes)
        # For what a run asks for besides, it waits itself.
        if free < needed_bytes:
            raise DiskFull(
                f"its inputs need {format_bytes(needed_bytes)} of disk ({format_bytes(free)} free): free some"
                " space on the disk of KAOS_HOME"
            )

    def _tree(self, files: Sequence[File], root_of: RootOf) -> Tree | None:
        """What is to be laid out; None for nothing at all."""
        if len(files) == 1 and not files[0].empty_files:
            return self._only(files[0], root_of)
        entries: dict[str, Subtree | FileSource] = {}
        for file in files:
            root = root_of(file)
            if file.empty_files:
                for entry in self._store.walk(root, file.path):
                    if entry.kind == "file":
                        entries[entry.path] = FileSource(b"")
            else:
                entries[file.path] = Subtree(root, file.path)
        made = self._store.build_tree(entries)
        return None if made is None else Tree(made, "/")

    def _only(self, file: File, root_of: RootOf) -> Tree:
        root = root_of(file)
        return Tree(root, file.path, place_of_inputs(self._store, root, file.path))


class Lent:
    """The inputs that one job has in use, and looked at once: for its threads, until `close`."""

    def __init__(self, cache: InputCache, *, shared: bool, beside_bytes: int) -> None:
        self._cache = cache
        self._shared = shared
        self._beside_bytes = beside_bytes
        self._held: dict[str, Entry] = {}
        self._small: OrderedDict[str, SmallInput] = OrderedDict()
        self._lock = threading.Lock()

    def deliver(self, files: Sequence[File], root_of: RootOf) -> Path | SmallInput:
        """As `prepare`; a small input by value."""
        key = input_key(files)
        with self._lock:
            held, small = key in self._held, self._small.get(key)
            if small is not None:
                self._small.move_to_end(key)
                return small
        if held or (small := self._cache.small(files, root_of, self._beside_bytes)) is None:
            return self.prepare(files, root_of)
        with self._lock:
            # What is another object is written again.
            small = self._small.setdefault(key, small)
            if len(self._small) > _REMEMBERED:
                self._small.popitem(last=False)
        return small

    def prepare(self, files: Sequence[File], root_of: RootOf) -> Path:
        """The directory that holds `files`, all of one input, exactly as they are stored.

        Raises:
            DataLoss: some of them are damaged; or another EngineError: they are gone.
            DiskFull: there is no room for them now. NeverFits: nor ever.
        """
        key = input_key(files)
        with self._lock:
            entry = self._held.get(key)
        if entry is None:
            entry = self._cache.take(files, root_of, shared=self._shared, beside_bytes=self._beside_bytes)
            with self._lock:
                # Who took it at the same time has the same one, and each counts as a user.
                again = key in self._held
                held = self._held.setdefault(key, entry)
            if again:
                self._cache.give_back(entry)
                entry = held
        return self._cache.path(entry)

    def close(self) -> None:
        """The job is over. Idempotent."""
        with self._lock:
            held, self._held = list(self._held.values()), {}
        for entry in held:
            self._cache.give_back(entry)
        self._cache.tidy()


def _lineage(files: Sequence[File]) -> str:
    """8 hex digits that the versions of one input have in common."""
    first = files[0]
    paths = _CONTENT_ID.sub("*", first.path) if len(files) == 1 else "many"
    text = "\0".join((first.project, first.repo, first.repo_type, paths))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _commits(files: Sequence[File]) -> list[str]:
    return sorted({str(commit_of(file)) for file in files})


def _holder(files: Sequence[File], path: str) -> str:
    """The commit that `path`, found below one of `files`, comes from."""
    file = next((file for file in files if path.startswith(file.path)), files[0])
    return f"repo {file.project}/{file.repo} at commit {file.commit}"
