"""What was fetched before, for all workspaces of this machine: contents by hash, what a server said of each
URL, and what has come of contents that are not whole yet.

It may be deleted at any time and is never trusted: a content is used only where its server says, asked with
the credentials of the fetch at hand, that it is unchanged, and only if it still has its hash. Several
processes may use it; whoever holds the lock of a URL's partial file brings that URL's content.

    index.sqlite, .lock     urls and contents, with when they were used last
    contents/ab/<blake3>    whole contents, never changed
    partial/<key>           what has come of a URL's content; locked (flock) while more comes
    git/<key>/              repositories (`gitrepo`)
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import blake3
import msgspec
from filelock import FileLock

from kaos_formats.folders import clean_up, disk_bytes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS contents (hash TEXT PRIMARY KEY, size INTEGER NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS urls (key TEXT PRIMARY KEY, hash TEXT NOT NULL, said BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS partials (key TEXT PRIMARY KEY, said BLOB NOT NULL, boot TEXT NOT NULL, synced
INTEGER);
"""
_VERSION = 1
_ASK_AGAIN_S = 0.1
_OLD_S = 7 * 24 * 3600.0
_ORPHAN_S = 3600.0
_PIECE = 1 << 20


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a server says of a content, as far as it says it: `size` in bytes, `last_modified` only where it
    can be relied on.
    """

    size: int | None = None
    etag: str = ""
    last_modified: str = ""
    version: str = ""
    commit: str = ""

    def is_other_than(self, known: Said) -> bool | None:
        """Whether the content has changed since `known` was said; None where nobody can tell."""
        if self.etag and known.etag:
            return self.etag != known.etag
        if None not in (self.size, known.size) and self.size != known.size:
            return True
        if self.last_modified and known.last_modified:
            return self.last_modified != known.last_modified
        if self.commit and known.commit:
            return self.commit != known.commit
        return None


def key_of(*parts: str) -> str:
    """The name of what these tell: a URL, and whose it is where that does not say it."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


class Cache:
    """Open until `close`. Methods raise OSError where the disk fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # What one may fetch another user of the machine may not.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._contents, self._partials, self.git = folder / "contents", folder / "partial", folder / "git"
        for one in (self._contents, self._partials, self.git):
            one.mkdir(parents=True, exist_ok=True)
        # What makes a database does not wait for others who do.
        with FileLock(folder / "index.lock"):
            self._db = _open(folder / "index.sqlite")
        self._boot = _boot_id()

    def close(self) -> None:
        self._db.close()

    def known(self, key: str) -> tuple[Said, str, int] | None:
        """What was said of a URL's content, its hash and size, if the content is here."""
        row = self._db.execute(
            "SELECT said, hash, size FROM urls JOIN contents USING (hash) WHERE key = ?", (key,)
        ).fetchone()
        if row is None or not self.path(row[1]).is_file():
            return None
        return _said(row[0]), row[1], row[2]

    def path(self, content: str) -> Path:
        """Where the content of a hash is, if it is here."""
        return self._contents / content[:2] / content

    def is_whole(self, content: str) -> bool:
        """Whether a content still has its hash; one that has not is removed."""
        path = self.path(content)
        try:
            if hash_of(path) == content:
                return True
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        return False

    def used(self, key: str, said: Said, content: str, size: int) -> None:
        """A URL's content was asked for, and this is what its server says of it."""
        now = time.time()
        self._write(
            ("REPLACE INTO contents VALUES (?, ?, ?)", (content, size, now)),
            ("REPLACE INTO urls VALUES (?, ?, ?)", (key, content, _text(said))),
        )

    @asynccontextmanager
    async def turn(self, key: str, wait: Callable[[], None] = lambda: None) -> AsyncIterator[Partial]:
        """The partial file of a URL's content, nobody else's meanwhile. `wait` is called once if another
        process has it.
        """
        path = self._partials / key
        while True:
            fd = _open_partial(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(fd, path):
                    break
            except BlockingIOError:
                wait()
                wait = _nothing
                await asyncio.sleep(_ASK_AGAIN_S)
            os.close(fd)
        partial = Partial(self, key, path, fd)
        try:
            yield partial
        finally:
            if partial.size == 0 and _is_at(fd, path):
                path.unlink(missing_ok=True)
            os.close(fd)

    def begun(self, key: str) -> tuple[Said, int | None] | None:
        """What was said of the content that has come in part; and up to where it is surely on the disk, where
        the machine has been started anew since.
        """
        row = self._db.execute("SELECT said, boot, synced FROM partials WHERE key = ?", (key,)).fetchone()
        return None if row is None else (_said(row[0]), None if row[1] == self._boot else row[2])

    def begin(self, key: str, said: Said, synced: int = 0) -> None:
        self._write(("REPLACE INTO partials VALUES (?, ?, ?, ?)", (key, _text(said), self._boot, synced)))

    def adopt(self, partial: Partial, content: str) -> Path:
        """What has come is whole and has this hash: it is a content from now on."""
        path = self.path(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.fchmod(partial.fd, 0o444)
        partial.path.replace(path)
        partial.size = 0
        self._write(("DELETE FROM partials WHERE key = ?", (partial.key,)))
        return path

    def make_room(self, wanted: int) -> bool:
        """Whether the disk has `wanted` bytes free, after contents were given up for them where it takes
        that.
        """
        if _free(self.folder) >= wanted:
            return True
        for content, _ in self._oldest():
            self._forget(content)
            if _free(self.folder) >= wanted:
                return True
        return False

    def trim(self, room: int) -> None:
        """Give up what was used least recently, until the whole takes at most `room` bytes; and what nobody
        goes on with, or knows of.
        """
        if not self.folder.is_dir():
            return
        self._sweep()
        contents, repositories = self._oldest(), self._repositories()
        taken = sum(size for _, size in contents) + disk_bytes(self._partials)
        sizes = [(path, disk_bytes(path)) for path in repositories]
        taken += sum(size for _, size in sizes)
        for content, size in contents:
            if taken <= room:
                return
            self._forget(content)
            taken -= size
        for repository, size in sizes:
            if taken <= room:
                return
            clean_up(repository)
            taken -= size

    def _repositories(self) -> list[Path]:
        """Those of git, the one that was used least recently first."""
        with suppress(FileNotFoundError):
            return sorted(self.git.iterdir(), key=lambda path: path.stat().st_mtime)
        return []

    def _oldest(self) -> list[tuple[str, int]]:
        return self._db.execute("SELECT hash, size FROM contents ORDER BY used").fetchall()

    def _forget(self, content: str) -> None:
        # Whoever reads it has it open or linked.
        self.path(content).unlink(missing_ok=True)
        self._write(
            ("DELETE FROM contents WHERE hash = ?", (content,)),
            ("DELETE FROM urls WHERE hash = ?", (content,)),
        )

    def _write(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        # Without its index, which somebody may have deleted just now, a fetch is only slower.
        with suppress(sqlite3.OperationalError), self._db:
            for statement, values in statements:
                self._db.execute(statement, values)

    def _sweep(self) -> None:
        now = time.time()
        known = {content for content, _ in self._oldest()}
        for path in self._contents.glob("??/*"):
            with suppress(OSError):
                if path.name not in known and now - path.stat().st_ctime > _ORPHAN_S:
                    path.unlink()
        for path in self._partials.glob("*"):
            with suppress(OSError):
                if now - path.stat().st_mtime > _OLD_S:
                    _unlink_unlocked(path)


class Partial:
    """What has come of one content so far: `size` bytes in `fd`. Held by `Cache.turn`."""

    def __init__(self, cache: Cache, key: str, path: Path, fd: int) -> None:
        self._cache = cache
        self.key, self.path, self.fd = key, path, fd
        self.size = os.fstat(fd).st_size
        self.said = Said()
        begun = cache.begun(key) if self.size else None
        if begun is None:
            self._cut(0)
        else:
            self.said = begun[0]
            if begun[1] is not None:
                # A crash of the machine leaves zeros where data had not reached the disk.
                self._cut(min(self.size, begun[1]))

    def restart(self, said: Said) -> None:
        """From the first byte, of the content of which this is said."""
        self._cut(0)
        self._cache.begin(self.key, said)
        self.said = said

    def leave_something(self) -> None:
        """Whoever asks for what comes after all of it is told that there is no such part, and nothing
        more.
        """
        if 0 < self.size == self.said.size:
            self._cut(self.size - 1)

    def sync(self) -> None:
        """What has come survives a crash of the machine."""
        os.fdatasync(self.fd)
        self._cache.begin(self.key, self.said, self.size)

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            count = os.pwrite(self.fd, view, self.size)
            self.size += count
            view = view[count:]

    def _cut(self, size: int) -> None:
        os.ftruncate(self.fd, size)
        self.size = size


def hash_of(path: Path) -> str:
    """The BLAKE3 of a file in hex."""
    hasher = blake3.blake3()
    with path.open("rb") as file:
        while block := file.read(_PIECE):
            hasher.update(block)
    return hasher.hexdigest()


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        # Broken, or a later version's: nothing is lost that cannot be fetched again.
        for one in path.parent.glob(f"{path.name}*"):
            one.unlink(missing_ok=True)
        return _connect(path)


def _open_partial(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60.0, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError("of another version")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _text(said: Said) -> bytes:
    return msgspec.json.encode(said)


def _said(text: bytes) -> Said:
    try:
        return msgspec.json.decode(text, type=Said)
    except msgspec.DecodeError:
        return Said()


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _unlink_unlocked(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(fd)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _nothing() -> None:
    """Said once is enough."""
