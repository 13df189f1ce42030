"""A folder of a tree becomes files of the user: written once, each verified as it is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from kaos_backend.engine.errors import DataLoss, InvalidArgument, NoHandover
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, ObjectStore, locate
from kaos_backend.engine.store.trees.nodes import Node
from kaos_backend.engine.store.trees.tree import walk
from kaos_formats.handover import Folder

_AT_A_TIME = 500
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Exported(NamedTuple):
    """What has been written since the last time."""

    files: int
    size_bytes: int


class _Store(Protocol):
    objects: ObjectStore

    def load(self, key: bytes) -> Node: ...

    def read(self) -> AbstractContextManager[sqlite3.Connection]: ...


def export(
    store: _Store,
    root: bytes | None,
    path: str,
    into: Folder,
    name: str,
    places: Mapping[str, str],
    modes: Mapping[str, int],
    mode: int,
) -> Iterator[Exported]:
    """Write what is below the directory `path` of a tree into a new folder `name` of a folder of this
    machine.

    Args:
        places: where files go that are called otherwise there, by path below `path`; "" for nowhere.
        modes: of the files that have another one than `mode`.

    Nothing is synced, and what is there when an error is raised is the caller's to remove.

    Raises:
        DataLoss: content is damaged or gone; the error names its path.
        NoHandover: the folder cannot be written by this process.
        NotFound: there is nothing at `path`.
    """
    try:
        top = into.open()
    except OSError as error:
        raise NoHandover(f"{into.path} cannot be written here: {error.strerror or error}") from error
    above = path.rstrip("/") + "/"
    made = {""}
    # Who may read a file may look into its folder; and who made it may do anything with that.
    folder_mode = 0o700 | mode | (mode & 0o444) >> 2
    # Whether this process makes files of that mode as they shall be: its umask is its own.
    plain = not folder_mode & _umask()
    try:
        files = (entry for entry in walk(store.load, root, path) if entry.kind == "file")
        while block := list(islice(files, _AT_A_TIME)):
            with store.read() as db:
                located = locate(db, {entry.hash for entry in block})
                for entry in block:
                    below = entry.path.removeprefix(above)
                    place = places.get(below, below)
                    if not place:
                        continue
                    place = f"{name}/{place}"
                    wanted = modes.get(below, mode)
                    _make_folder(place.rpartition("/")[0], top, made, folder_mode, plain)
                    fd = os.open(place, _NEW, wanted, dir_fd=top)
                    try:
                        if wanted != mode or not plain:
                            os.fchmod(fd, wanted)
                        if entry.hash != EMPTY_HASH:
                            store.objects.copy_out(db, store.objects.require(located, entry.hash), fd)
                    except DataLoss as error:
                        raise error.at(entry.path) from error
                    finally:
                        os.close(fd)
            yield Exported(len(block), sum(entry.size_bytes for entry in block))
    except PermissionError as error:
        raise NoHandover(f"{into.path} cannot be written here: {error.strerror}") from error
    finally:
        os.close(top)


def _umask() -> int:
    """Of this process, whose other threads make files meanwhile: not to be found out by setting it."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return 0o777
    return next((int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:")), 0o777)


def _make_folder(path: str, top: int, made: set[str], mode: int, plain: bool) -> None:
    missing = []
    while path not in made:
        if path.rpartition("/")[2] in ("", ".", ".."):
            raise InvalidArgument(f"{path} is no path below a folder")
        missing.append(path)
        path = path.rpartition("/")[0]
    for one in reversed(missing):
        os.mkdir(one, mode, dir_fd=top)
        if not plain:
            os.chmod(one, mode, dir_fd=top)
        made.add(one)
