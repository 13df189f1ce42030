"""Check and repair: is all that commits speak of there, byte for byte, and is what is not somewhere else?"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kaos_backend.engine.errors import DataLoss, EngineError, NotFound
from kaos_backend.engine.store.bytes.objects import (
    EMPTY_HASH,
    Location,
    locate,
    pack_records,
)
from kaos_backend.engine.store.model import CommitKey, RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.files import Staged
from kaos_backend.engine.store.trees.nodes import Node, decode
from kaos_backend.engine.store.trees.tree import walk
from kaos_backend.engine.store.txn import fetch_tree
from kaos_backend.engine.store.versions import history, refs

_PROGRESS_BYTES = 64 << 20
_PROGRESS_OBJECTS = 2_000
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        repo, commit, path: a file (or directory, with a trailing slash) that has lost its content, and the
            newest commit of the repo that holds it there; None and empty when no commit speaks of it.
        object: the BLAKE3-256 of the content (or of the directory's listing); None when it is no object.
        what: what is wrong with it.
        repaired: it is whole again. What is not is lost until the same content is sent again.
    """

    repo: RepoKey | None
    commit: str
    path: str
    object: bytes | None
    what: str
    repaired: bool

    def __str__(self) -> str:
        where = f"{self.path} in repo {self.repo} at commit {self.commit}" if self.repo else "the store"
        name = f"object {self.object.hex()} " if self.object else ""
        return f"{where}: {name}{self.what}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How much has been read and compared, of how much."""

    objects: int
    objects_total: int
    bytes: int
    bytes_total: int


def check(store: Store, repair: bool = False, laid_out: Path | None = None) -> Iterator[Finding | Progress]:
    """Read and hash every object, and look over every tree of every commit. Others may work meanwhile.

    What is damaged is known as such afterwards: the same content is taken when it is sent again. With
    `repair` it is first looked for in all packs, whatever the index says of them, and in the directories of
    `laid_out`, each of which has files at their paths.
    """
    with store.upkeep.turn():
        yield from _Check(store, repair, laid_out).run()


def findings(store: Store, repair: bool = False, laid_out: Path | None = None) -> list[Finding]:
    """As `check`, without the progress."""
    return [found for found in check(store, repair, laid_out) if isinstance(found, Finding)]


def count_objects(store: Store, begin: bytes = b"", end: bytes = b"", read: bool = False) -> int:
    """How many objects have hashes in [begin, end), b"" for no end; with `read`, each is read and hashed.

    Raises:
        DataLoss: one that was read is damaged or gone.
    """
    with store.read() as db:
        rows = db.execute(
            "SELECT hash FROM objects WHERE hash >= ? AND (? = x'' OR hash < ?)", (begin, end, end)
        )
        hashes = [row[0] for row in rows]
    for hash_ in hashes if read else ():
        for _ in store.read_object(hash_):
            pass
    return len(hashes)


def damaged_files(store: Store, root: bytes | None, path: str) -> list[str]:
    """The paths at and below `path` of a tree whose content is known to be damaged or gone."""
    if not store.damage.any():
        return []
    try:
        below = [entry for entry in walk(store.load, root, path) if entry.kind == "file"]
    except NotFound:
        return []
    except DataLoss:
        return [path]
    bad = store.damage.among({entry.hash for entry in below})
    return [entry.path for entry in below if entry.hash in bad]


class _Check:
    def __init__(self, store: Store, repair: bool, laid_out: Path | None) -> None:
        self._store = store
        self._repair = repair
        self._laid_out = laid_out
        # What is wrong with an object, and with a directory's listing.
        self._objects: dict[bytes, str] = {}
        self._listings: dict[bytes, str] = {}

    def run(self) -> Iterator[Finding | Progress]:
        # What is open would go on to be there although its name is gone.
        self._store.objects.close()
        yield from self._database()
        commits = self._commits()
        directories, wanted = self._collect(commits)
        yield from self._read(wanted)
        if self._objects or self._listings:
            yield from self._report(commits, self._tainted(directories))

    def _database(self) -> Iterator[Finding]:
        with self._store.read() as db:
            problems = [str(row[0]) for row in db.execute("PRAGMA quick_check")]
            headless = db.execute(
                "SELECT id FROM branches WHERE head_id NOT IN (SELECT id FROM commits)"
            ).fetchall()
            branches = [refs.branch_key(db, row[0]) for row in headless]
        for problem in problems:
            if problem != "ok":
                yield Finding(None, "", "", None, f"the database: {problem}", False)
        for branch in branches:
            yield Finding(branch.repo, "", "", None, f"branch {branch.name} has no head", False)

    def _commits(self) -> list[tuple[CommitKey, bytes]]:
        """Every commit with files, newest first."""
        with self._store.read() as db:
            rows = db.execute("SELECT id, root FROM commits WHERE root IS NOT NULL ORDER BY id DESC")
            return [(history.commit_by_id(db, row[0]).key, row[1]) for row in rows.fetchall()]

    def _node(self, key: bytes) -> Node:
        """A directory as it is stored now, whatever is remembered of it."""
        with self._store.read() as db:
            return decode(fetch_tree(db, key), lambda chunk: fetch_tree(db, chunk))

    def _collect(self, commits: Iterable[tuple[CommitKey, bytes]]) -> tuple[set[bytes], set[bytes]]:
        """(every directory, every object) that the commits speak of; bad listings are noted."""
        directories: set[bytes] = set()
        objects: set[bytes] = set()
        todo = [root for _, root in commits]
        while todo:
            key = todo.pop()
            if key in directories:
                continue
            directories.add(key)
            try:
                node = self._node(key)
            except DataLoss as error:
                self._listings[key] = error.what
            except EngineError as error:
                self._listings[key] = error.message
            else:
                objects.update(ref.object for ref in node.files)
                todo += [ref.key for ref in node.dirs]
        return directories, objects - {EMPTY_HASH}

    def _read(self, wanted: set[bytes]) -> Iterator[Progress]:
        """Read all objects, in the order in which they lie."""
        with self._store.read() as db:
            cursor = db.cursor()
            cursor.row_factory = None
            rows = cursor.execute("SELECT hash, pack, offset, length FROM objects ORDER BY pack, offset")
            places = [Location(*row) for row in rows]
        damage = self._store.damage
        for hash_ in wanted - {at.hash for at in places}:
            self._objects[hash_] = damage.note(hash_, "is not in the index").what
        total = sum(at.length for at in places)
        done = told = 0
        yield Progress(0, len(places), 0, total)
        for count, at in enumerate(places, 1):
            what = self._compare(at)
            if what:
                self._objects[at.hash] = what
            elif damage.what(at.hash):
                self._store.clear_damage([at.hash])
            done += at.length
            if done - told >= _PROGRESS_BYTES or not count % _PROGRESS_OBJECTS or count == len(places):
                told = done
                yield Progress(count, len(places), done, total)

    def _compare(self, at: Location) -> str:
        """What is wrong with an object; empty when nothing is."""
        while True:
            try:
                with self._store.read() as db:
                    pieces = self._store.objects.open(db, at)
                for _ in pieces:
                    pass
            except DataLoss as error:
                with self._store.read() as db:
                    now = locate(db, [at.hash]).get(at.hash)
                if now is None or now == at:
                    return error.what
                # It was sent again meanwhile.
                at = now
            else:
                return ""

    def _tainted(self, directories: Iterable[bytes]) -> set[bytes]:
        """The directories with something bad at or below them."""
        above: dict[bytes, list[bytes]] = defaultdict(list)
        todo = list(self._listings)
        for key in directories:
            if key in self._listings:
                continue
            node = self._node(key)
            for ref in node.dirs:
                above[ref.key].append(key)
            if any(ref.object in self._objects for ref in node.files):
                todo.append(key)
        tainted: set[bytes] = set()
        while todo:
            key = todo.pop()
            if key not in tainted:
                tainted.add(key)
                todo += above[key]
        return tainted

    def _report(self, commits: list[tuple[CommitKey, bytes]], tainted: set[bytes]) -> Iterator[Finding]:
        """Each bad object at each path of each repo, with the newest commit that holds it there."""
        places: dict[bytes, dict[tuple[RepoKey, str], str]] = defaultdict(dict)
        for commit, root in commits:
            todo = [("/", root)] if root in tainted else []
            while todo:
                path, key = todo.pop()
                if key in self._listings:
                    places[key].setdefault((commit.repo, path), commit.id)
                    continue
                node = self._node(key)
                for file in node.files:
                    if file.object in self._objects:
                        places[file.object].setdefault((commit.repo, path + file.name), commit.id)
                todo += [(f"{path}{ref.name}/", ref.key) for ref in node.dirs if ref.key in tainted]
        for key, what in self._listings.items():
            for (repo, path), id_ in places[key].items():
                yield Finding(repo, id_, path, key, what, False)
        packed = self._packed() if self._repair else {}
        for hash_, what in self._objects.items():
            paths = {path for _, path in places[hash_]}
            repaired = self._repair and any(
                _restore(self._store, hash_, copy) for copy in self._copies(hash_, paths, packed)
            )
            for (repo, path), id_ in places[hash_].items():
                yield Finding(repo, id_, path, hash_, what, repaired)
            if not places[hash_]:
                yield Finding(None, "", "", hash_, f"{what}; no commit holds it", repaired)

    # Where else the bytes might be

    def _packed(self) -> dict[bytes, list[tuple[Path, int, int]]]:
        """(pack, offset, length) of every record of a bad object, whatever the index says."""
        found: dict[bytes, list[tuple[Path, int, int]]] = defaultdict(list)
        for path in sorted(self._store.objects.packs.iterdir()):
            with suppress(OSError):
                for hash_, at, length in pack_records(path):
                    if hash_ in self._objects:
                        found[hash_].append((path, at, length))
        return found

    def _copies(
        self, hash_: bytes, paths: Iterable[str], packed: dict[bytes, list[tuple[Path, int, int]]]
    ) -> Iterator[Iterator[bytes]]:
        with self._store.read() as db:
            row = db.execute("SELECT data FROM small_objects WHERE hash=?", (hash_,)).fetchone()
        if row is not None:
            yield iter((row[0],))
        for pack, offset, length in packed.get(hash_, ()):
            yield _pieces(pack, offset, length)
        yield _pieces(self._store.objects.loose_path(hash_))
        if self._laid_out is not None:
            for directory in self._laid_out.glob("*/"):
                for path in paths:
                    yield _pieces(directory / path.lstrip("/"))


def _pieces(path: Path, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Bytes of a regular file; none when it cannot be read."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            end = found.st_size if length is None else offset + length
            while stat.S_ISREG(found.st_mode) and offset < end:
                piece = os.pread(fd, min(_READ_BYTES, end - offset), offset)
                if not piece:
                    return
                offset += len(piece)
                yield piece
        finally:
            os.close(fd)


def _restore(store: Store, hash_: bytes, copy: Iterator[bytes]) -> bool:
    """Take the bytes in as if they were sent again, if they are the right ones."""
    with store.upload() as upload:
        with upload.batch.writer() as writer:
            for piece in copy:
                writer.write(piece)
            found, _ = writer.finish()
        if found != hash_:
            return False
        upload.seal()
        with store.write() as txn:
            txn.adopt(Staged(upload, None, []))
    return True
