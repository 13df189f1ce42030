"""The hand-over of files on one machine: who has the bytes is told where they are, and takes or writes them
itself.

Only between processes of one user: over a Unix socket in a folder that nobody else may enter. A folder is
named by its path and by device and inode, so that one of another mount namespace, or one put in its place, is
noticed.

A list of files is sent in lines, each a JSON array of `File`s; all of them together are sorted by path. Where
it says how a folder differs from what is known of it already, a line with the paths that are gone, a JSON
array of strings, goes before these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import msgspec

FILES_A_LINE = 2000
MAX_LIST_BYTES = 512 << 20


class Folder(msgspec.Struct, frozen=True):
    """A folder of this machine: absolute path without symlinks, and what it is."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises OSError."""
        found = path.stat()
        return cls(str(path), found.st_dev, found.st_ino)

    def open(self) -> int:
        """A descriptor of it. Raises OSError, also for another one at its path."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != (self.device, self.inode):
                raise FileNotFoundError(f"{self.path} is another folder here")
        except OSError:
            os.close(fd)
            raise
        return fd


class File(msgspec.Struct, array_like=True, gc=False):
    """A file of a folder as it was seen: sizes in bytes, times in ns since the epoch.

    ``path`` is what it is called, with ``/``. ``hash`` is its BLAKE3 in hex if that is known: then it is read
    only where the content is not there yet. ``source`` is where it lies in the folder if a symlink leads
    there from ``path``; no part of it is a symlink.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool = False
    hash: str = ""
    source: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[File]).decode
_decode_paths = msgspec.json.Decoder(list[str]).decode


def lines(files: Iterable[File]) -> Iterator[bytes]:
    """The list as it is sent."""
    block: list[File] = []
    for file in files:
        block.append(file)
        if len(block) == FILES_A_LINE:
            yield _encode(block) + b"\n"
            block = []
    if block:
        yield _encode(block) + b"\n"


def read_line(line: bytes) -> list[File]:
    """The files of one line. Raises msgspec.ValidationError or DecodeError."""
    return _decode(line)


def paths_line(paths: Iterable[str]) -> bytes:
    """The line with the paths that are gone."""
    return _encode(list(paths)) + b"\n"


def read_paths(line: bytes) -> list[str]:
    """Of such a line. Raises msgspec.ValidationError or DecodeError."""
    return _decode_paths(line)
