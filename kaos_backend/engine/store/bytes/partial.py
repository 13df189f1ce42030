"""Large objects that come over a network: what has come of one stays when its stream breaks off.

Each is a file in ``partial/``, named by the hash that the object is to have, and only ever appended to. No
row speaks of it: it is no content before it is whole and has that hash.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from kaos_backend.engine.clock import Clock
from kaos_backend.engine.errors import DiskFull
from kaos_backend.engine.store.bytes.batch import Chunk
from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.bytes.objects import READ_BYTES
from kaos_formats.folders import clean_up, folder

KEEP_S = 24 * 3600
"""For so long a half object waits for its next byte."""
# The disk is asked to begin with this many bytes at a time while the next ones arrive.
_WRITE_BACK_BYTES = 32 << 20


class Partials:
    """The half objects of one store; each is written by one caller at a time."""

    def __init__(self, root: Path, disk: Disk, clock: Clock) -> None:
        self._root = folder(root / "partial")
        self._disk = disk
        self._clock = clock
        self._open: set[bytes] = set()
        self._lock = threading.Lock()

    def sizes(self, wanted: Collection[bytes]) -> dict[bytes, int]:
        """How many bytes have come of each; without those of which there are none, or come right now."""
        there = {path.name: path for path in self._root.iterdir()}
        with self._lock:
            idle = [name for name in wanted if name.hex() in there and name not in self._open]
        found: dict[bytes, int] = {}
        for name in idle:
            with suppress(FileNotFoundError):
                found[name] = there[name.hex()].stat().st_size
        return {name: size for name, size in found.items() if size}

    @contextmanager
    def open(self, name: bytes) -> Iterator[Partial | None]:
        """The half object to go on with, or a new one; None when somebody else is at it. What has come by
        the end of the block stays, unless the disk is full.
        """
        with self._lock:
            if name in self._open:
                free = False
            else:
                self._open.add(name)
                free = True
        if not free:
            yield None
            return
        try:
            partial = Partial(self._disk, self._root / name.hex())
            try:
                yield partial
            except DiskFull:
                partial.drop()
                raise
            finally:
                partial.close()
        finally:
            with self._lock:
                self._open.discard(name)

    def sweep(self, *, dry_run: bool = False) -> int:
        """Remove what nobody has gone on with for `KEEP_S`; how many bytes that frees."""
        before_s = self._clock() / 1e6 - KEEP_S
        freed = 0
        for path in self._root.iterdir():
            with self._lock:
                if any(name.hex() == path.name for name in self._open):
                    continue
                try:
                    found = path.lstat()
                except FileNotFoundError:
                    continue
                if found.st_mtime < before_s:
                    freed += found.st_size
                    if not dry_run:
                        clean_up(path)
        return freed

    def total_bytes(self) -> int:
        """What all of them take."""
        total = 0
        for path in self._root.iterdir():
            with suppress(FileNotFoundError):
                total += path.lstat().st_size
        return total


class Partial:
    """One half object. `size` is how many bytes of it are there."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._fd).st_size
        self._hasher = blake3()
        self._hashed = 0
        self._given_to_disk = self.size

    def begin_anew(self) -> None:
        """Forget what has come."""
        os.ftruncate(self._fd, 0)
        self.size = self._hashed = self._given_to_disk = 0
        self._hasher = blake3()

    def write(self, data: Chunk) -> None:
        """Append. Raises DiskFull."""
        self._catch_up()
        self._disk.write(self._fd, data)
        self.size += len(data)
        self._hasher.update(data)
        self._hashed = self.size
        fresh = self.size - self._given_to_disk
        if fresh >= _WRITE_BACK_BYTES:
            self._disk.start_writing_back(self._fd, self._given_to_disk, fresh)
            self._given_to_disk = self.size

    def digest(self) -> bytes:
        """The hash of what has come."""
        self._catch_up()
        return self._hasher.digest()

    def _catch_up(self) -> None:
        """Hash what had come before."""
        if self._hashed == self.size:
            return
        view = memoryview(bytearray(READ_BYTES))
        while count := os.preadv(self._fd, [view[: self.size - self._hashed]], self._hashed):
            self._hasher.update(view[:count])
            self._hashed += count

    def drop(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Afterwards a no-op."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
