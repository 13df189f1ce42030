"""Files of a folder of this machine on their way into a tree, read where they lie.

Nothing of the folder is trusted to stay as it was listed: every name on the way is opened beneath a
descriptor of the folder and never through a symlink, and a file counts only if it is the one that was listed,
before and after it was read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from typing import NamedTuple

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, Changed, InvalidArgument, NoHandover
from kaos_backend.engine.store.bytes.copying import Shorter, copy_in
from kaos_backend.engine.store.bytes.objects import LOOSE_BYTES
from kaos_backend.engine.store.names import file_path
from kaos_backend.engine.store.trees.build import TreeBuilder
from kaos_backend.engine.store.trees.files import Staged
from kaos_backend.engine.store.trees.upload import Upload
from kaos_formats.handover import File, Folder

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# A named pipe in a file's place must not keep us waiting for a writer.
_FILE = _FLAGS | os.O_NONBLOCK
_FOLDER = _FLAGS | os.O_DIRECTORY
# Something else was put in a file's place: nothing, a symlink, a folder, a socket, a device, a named pipe.
_REPLACED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EAGAIN}
)


class Taken(NamedTuple):
    """What has been taken since the last time: bytes that were read, and hashes of listed files, in their
    order.
    """

    read_bytes: int
    hashes: bytes


class FolderUpload:
    """Use as a context manager: take every part of the list in order, then `seal`, and adopt what that
    returns.
    """

    def __init__(self, upload: Upload, folder: Folder) -> None:
        self._upload = upload
        self._batch = upload.batch
        self._builder = TreeBuilder()
        self._read: list[tuple[bytes, int]] = []
        try:
            self._beneath = _Beneath(folder.open())
        except OSError as error:
            raise NoHandover(f"{folder.path} cannot be read here: {error.strerror or error}") from error

    def __enter__(self) -> FolderUpload:
        return self

    def __exit__(self, *_: object) -> None:
        self._beneath.close()

    def take(self, files: list[File]) -> Iterator[Taken]:
        """Take files in. The hashes of all of `files` come with the last item.

        Raises:
            Changed: a file is not, or not any more, the one that was listed.
            NoHandover: a file cannot be read by this process.
            DiskFull: the disk is full.
        """
        try:
            given = [bytes.fromhex(file.hash) for file in files]
        except ValueError as error:
            raise InvalidArgument(f"the list of files has a broken hash: {error}") from error
        there = self._batch.known([one for one in given if one])
        hashes: list[bytes] = []
        read = 0
        for file, hash_ in zip(files, given, strict=True):
            if not hash_ or hash_ not in there:
                if file.size < LOOSE_BYTES:
                    hash_ = self._small(file)
                    read += file.size
                else:
                    if read:
                        yield Taken(read, b"")
                        read = 0
                    hash_ = yield from self._large(file)
                self._read.append((hash_, file.size))
            self._builder.put(file_path(file.path), hash_, file.size)
            hashes.append(hash_)
        yield Taken(read, b"".join(hashes))

    def seal(self) -> Staged:
        """Make all of it durable."""
        root = self._builder.finish()
        self._upload.seal()
        return Staged(self._upload, root, self._builder.rows)

    def new(self) -> tuple[int, int]:
        """Of what was sealed: how many files have content that was not there, and their bytes."""
        sizes = [size for hash_, size in self._read if self._batch.brings(hash_)]
        return len(sizes), sum(sizes)

    def _small(self, file: File) -> bytes:
        fd = self._open(file)
        try:
            data = os.read(fd, file.size + 1)
            if len(data) == file.size and _is(file, fd):
                return self._batch.add(data)
        except OSError as error:
            raise _unreadable(file, error) from error
        finally:
            os.close(fd)
        raise Changed(file.path)

    def _large(self, file: File) -> Generator[Taken, None, bytes]:
        fd = self._open(file)
        try:
            if not _is(file, fd):
                raise Changed(file.path)
            copying = copy_in(self._batch, fd, file.size)
            while True:
                try:
                    yield Taken(next(copying), b"")
                except StopIteration as done:
                    hash_: bytes = done.value
                    break
            if not _is(file, fd):
                raise Changed(file.path)
        except Shorter as error:
            raise Changed(file.path) from error
        except OSError as error:
            raise _unreadable(file, error) from error
        finally:
            os.close(fd)
        return hash_

    def _open(self, file: File) -> int:
        try:
            return self._beneath.open(file.source or file.path)
        except OSError as error:
            raise _unreadable(file, error) from error


class _Beneath:
    """Opens files below a folder, whose descriptor it owns; those on the way to the last one stay open."""

    def __init__(self, fd: int) -> None:
        self._fds = [fd]
        self._names: list[str] = []
        self._folder = ""

    def open(self, path: str) -> int:
        """A descriptor of a file. Raises OSError (ELOOP, ENOTDIR) where a symlink is on the way."""
        folder, _, name = path.rpartition("/")
        if folder != self._folder:
            self._enter(folder)
        return os.open(name, _FILE, dir_fd=self._fds[-1])

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


def _is(file: File, fd: int) -> bool:
    """Whether an open file is the one that was listed, unchanged since."""
    found = os.fstat(fd)
    return (
        found.st_size == file.size
        and found.st_mtime_ns == file.mtime_ns
        and found.st_ctime_ns == file.ctime_ns
        and found.st_ino == file.inode
        and stat.S_ISREG(found.st_mode)
    )


def _unreadable(file: File, error: OSError) -> Exception:
    if error.errno in DISK_FULL_ERRNOS:
        return error
    if error.errno in _REPLACED:
        return Changed(file.path)
    return NoHandover(f"{file.path} cannot be read here: {error.strerror}")
