"""The few system calls that make bytes durable, in one place, so that tests can let them fail."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, EngineError, disk_full

_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409
_BLOCK_BYTES = 1 << 20
# copy_file_range cannot do it, between these two files or at all.
_NOT_IN_KERNEL = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY, errno.EBADF}
)
_libc = ctypes.CDLL(None, use_errno=True)


def read_at(fd: int, length: int, offset: int) -> bytes:
    """`length` bytes from `offset` on; fewer only where the file ends. A disk may give them in parts."""
    data = os.pread(fd, length, offset)
    if len(data) == length:
        return data
    parts = [data]
    while data and (missing := length - sum(map(len, parts))):
        data = os.pread(fd, missing, offset + length - missing)
        parts.append(data)
    return b"".join(parts)


class Disk:
    """Write, sync and rename. A full disk is raised as DiskFull, whichever call meets it."""

    def create(self, path: Path) -> int:
        """A new file (0600), opened for reading and writing."""
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self.explain(error, path) from error

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            raise self.explain(error, None) from error

    def clone(self, source: int, target: int) -> bool:
        """Let the empty file `target` share the blocks of `source` until either is written to (a reflink).

        False where the file system cannot do that: btrfs and XFS can, ext4 cannot.
        """
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise self.explain(error, None) from error
            return False
        return True

    def copy(self, source: int, target: int, offset: int, length: int) -> int:
        """Copy up to `length` bytes between open files, at `offset` in both; how many, 0 at the source's end.

        In the kernel, and without moving a byte on file systems that share blocks, where it can be done.
        """
        try:
            return os.copy_file_range(source, target, length, offset, offset)
        except OSError as error:
            if error.errno not in _NOT_IN_KERNEL:
                raise self.explain(error, None) from error
        data = os.pread(source, min(length, _BLOCK_BYTES), offset)
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(target, data[done:], offset + done)
        except OSError as error:
            raise self.explain(error, None) from error
        return done

    def start_writing_back(self, fd: int, offset: int, length: int) -> None:
        """Let the disk begin with `length` bytes that were just written, so that `sync` finds them done.

        A hint (Linux's sync_file_range): where there is no such call, or it fails, `sync` does it all.
        """
        call = getattr(_libc, "sync_file_range", None)
        if call is not None:
            call(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise self.explain(error, None) from error

    def sync_path(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            self.sync(fd)
        finally:
            os.close(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        except OSError as error:
            raise self.explain(error, path) from error
        finally:
            os.close(fd)

    def make_directory(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self.explain(error, path) from error

    def rename(self, source: Path, target: Path) -> None:
        try:
            source.replace(target)
        except OSError as error:
            raise self.explain(error, target) from error

    def unlink(self, path: Path) -> None:
        path.unlink()

    @staticmethod
    def explain(error: OSError, path: Path | None) -> EngineError | OSError:
        """The engine's error for a full disk, else the error itself."""
        if error.errno in DISK_FULL_ERRNOS:
            return disk_full(str(path.parent) if path is not None else "the store")
        return error
