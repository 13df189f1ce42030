"""One file of this machine after another becomes an object, read where it lies.

Nothing is trusted to stay as it was listed: every name on the way is opened beneath a descriptor of the
folder and never through a symlink, and a file counts only if it is the one that was listed, before and after
it was read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Sequence

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, Changed, NoHandover
from kaos_backend.engine.store.bytes.batch import Batch
from kaos_backend.engine.store.bytes.copying import Shorter, copy_in
from kaos_formats.handover import File

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# A named pipe in a file's place must not keep us waiting for a writer.
_FILE = _FLAGS | os.O_NONBLOCK
_FOLDER = _FLAGS | os.O_DIRECTORY
_TOGETHER_BYTES = 1 << 20
# Something else was put in a file's place: nothing, a symlink, a folder, a socket, a device, a named pipe.
_REPLACED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EAGAIN}
)


class Taker:
    """Takes files beneath the folder of an open descriptor, which it owns, into a batch.

    All raise Changed: a file is not, or not any more, the one that was listed; NoHandover: this process
    cannot read it; DiskFull.
    """

    def __init__(self, batch: Batch, fd: int) -> None:
        self._batch = batch
        self.beneath = Beneath(fd)

    def close(self) -> None:
        self.beneath.close()

    def small(self, files: Sequence[File]) -> list[bytes]:
        """The hashes of files smaller than LOOSE_BYTES."""
        hashes: list[bytes] = []
        pieces: list[bytes] = []
        size = 0
        above, beneath = "", self.beneath.folder("")
        # All in one place: calls of Python's own would take as long as those of the system.
        for file in files:
            expected = file.size
            folder, _, name = (file.source or file.path).rpartition("/")
            try:
                if folder != above:
                    beneath = self.beneath.folder(folder)
                    above = folder
                fd = os.open(name, _FILE, dir_fd=beneath)
                try:
                    # Of what has more than it says, as files of /proc do, that shows.
                    data = os.read(fd, expected + 1)
                    found = os.fstat(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                raise unreadable(file.path, error) from error
            if len(data) != expected or not _is(file, found):
                raise Changed(file.path)
            pieces.append(data)
            size += expected
            if size >= _TOGETHER_BYTES:
                hashes += self._batch.add_small(pieces)
                pieces, size = [], 0
        return hashes + self._batch.add_small(pieces)

    def large(self, file: File) -> Generator[int, None, bytes]:
        """Yields how many bytes were done since the last time; returns the hash."""
        fd = self._open(file)
        try:
            if not _is(file, os.fstat(fd)):
                raise Changed(file.path)
            hash_ = yield from copy_in(self._batch, fd, file.size)
            if not _is(file, os.fstat(fd)):
                raise Changed(file.path)
        except Shorter as error:
            raise Changed(file.path) from error
        except OSError as error:
            raise unreadable(file.path, error) from error
        finally:
            os.close(fd)
        return hash_

    def _open(self, file: File) -> int:
        try:
            return self.beneath.open(file.source or file.path)
        except OSError as error:
            raise unreadable(file.path, error) from error


class Beneath:
    """Opens files below a folder, whose descriptor it owns; those on the way to the last one stay open."""

    def __init__(self, fd: int) -> None:
        self._fds = [fd]
        self._names: list[str] = []
        self._folder = ""

    def open(self, path: str) -> int:
        """A descriptor of a file. Raises OSError (ELOOP, ENOTDIR) where a symlink is on the way."""
        folder, _, name = path.rpartition("/")
        return os.open(name, _FILE, dir_fd=self.folder(folder))

    def folder(self, path: str) -> int:
        """The descriptor of a folder ("" is the top), good until the next call. Raises OSError likewise."""
        if path != self._folder:
            self._enter(path)
        return self._fds[-1]

    def close(self) -> None:
        self._leave(0)
        os.close(self._fds.pop())

    def _enter(self, folder: str) -> None:
        names = folder.split("/") if folder else []
        if "" in names or ".." in names:
            raise FileNotFoundError(errno.ENOENT, "is no path beneath the folder", folder)
        shared = 0
        while shared < min(len(names), len(self._names)) and names[shared] == self._names[shared]:
            shared += 1
        self._leave(shared)
        for name in names[shared:]:
            self._fds.append(os.open(name, _FOLDER, dir_fd=self._fds[-1]))
            self._names.append(name)
        self._folder = folder

    def _leave(self, depth: int) -> None:
        # Not to be taken for the current one, should entering another fail.
        self._folder = "/"
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._fds.pop())


def _is(file: File, found: os.stat_result) -> bool:
    """Whether an open file is the one that was listed, unchanged since."""
    return (
        found.st_size == file.size
        and found.st_mtime_ns == file.mtime_ns
        and found.st_ctime_ns == file.ctime_ns
        and found.st_ino == file.inode
        and stat.S_ISREG(found.st_mode)
    )


def unreadable(path: str, error: OSError) -> Exception:
    """What an error at a path that was listed means: Changed, NoHandover, or that the disk is full."""
    if error.errno in DISK_FULL_ERRNOS:
        return error
    if error.errno in _REPLACED:
        return Changed(path)
    return NoHandover(f"{path} cannot be read here: {error.strerror}")
