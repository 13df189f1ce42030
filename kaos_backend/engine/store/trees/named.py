"""What a path of this machine names, added to a stream of changes: a file, or all files of a folder.

The path may lead through symlinks, but what it names is none, and none is followed below: see `taking`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from kaos_backend.engine.errors import InvalidArgument, Unknown
from kaos_backend.engine.store.bytes.objects import LOOSE_BYTES
from kaos_backend.engine.store.names import file_path
from kaos_backend.engine.store.trees.taking import Beneath, Taker, unreadable
from kaos_backend.engine.store.trees.upload import Upload
from kaos_formats.handover import File, Folder

_KINDS = {
    stat.S_IFLNK: "a symlink, which is not followed",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def add_named(upload: Upload, path: str, dst: str, tag: str, recursive: bool) -> Iterator[int]:
    """Append a file to the file `dst`; with `recursive` a folder's files to those of the same paths below it.

    `path` is absolute. Yields the bytes that were read since the last time.

    Raises:
        InvalidArgument: it is no plain path, or there is something else than regular files and folders; or a
            folder without `recursive`.
        Unknown: there is nothing, or PFS cannot hold a file's name.
        Changed, NoHandover, DiskFull: as `Taker`.
    """
    names = path.split("/")[1:]
    while names and not names[-1]:
        names.pop()
    if not path.startswith("/") or "\0" in path or not names or {"", ".", ".."} & set(names):
        raise InvalidArgument(f"{path!r} is no absolute path of a file or folder, without . and ..")
    place = "/" + "/".join(names)
    above = "/" + "/".join(names[:-1])
    try:
        found = os.lstat(place)
        if stat.S_ISDIR(found.st_mode):
            if not recursive:
                raise InvalidArgument(f"{place} is a folder: set `recursive` for all of its files")
            taker = Taker(upload.batch, Folder(place, found.st_dev, found.st_ino).open())
        else:
            _require_file(place, found.st_mode)
            taker = Taker(upload.batch, os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise Unknown(f"{place} cannot be read: {error.strerror or error}") from error
    try:
        if not stat.S_ISDIR(found.st_mode):
            yield from _add(upload, taker, _listed(names[-1], found), file_path(dst), tag)
            return
        for file in _files(taker.beneath, place):
            yield from _add(upload, taker, file, file_path(f"{dst}/{file.path}"), tag)
    finally:
        taker.close()


def _add(upload: Upload, taker: Taker, file: File, dst: str, tag: str) -> Iterator[int]:
    if file.size < LOOSE_BYTES:
        (hash_,) = taker.small([file])
        yield file.size
    else:
        hash_ = yield from taker.large(file)
    upload.add_taken(dst, tag, hash_, file.size)


def _files(beneath: Beneath, place: str) -> Iterator[File]:
    """All files below a folder, each listed just before it is taken."""
    left = [""]
    while left:
        folder = left.pop()
        prefix = folder + "/" if folder else ""
        try:
            with os.scandir(beneath.folder(folder)) as scanned:
                entries = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in scanned)
        except OSError as error:
            raise unreadable(f"{place}/{folder}", error) from error
        for name, found in entries:
            if not stat.S_ISDIR(found.st_mode):
                _require_file(f"{place}/{prefix}{name}", found.st_mode)
                yield _listed(prefix + name, found)
        left += [prefix + name for name, found in reversed(entries) if stat.S_ISDIR(found.st_mode)]


def _listed(path: str, found: os.stat_result) -> File:
    return File(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _require_file(place: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = _KINDS.get(stat.S_IFMT(mode), "something special")
        raise InvalidArgument(f"{place} is {what}: regular files and folders can be read, nothing else")
