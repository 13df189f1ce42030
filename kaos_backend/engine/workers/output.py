"""A trial's output folder, read as the trial saw it and by descriptors that nobody can lead elsewhere.

Every file is reached one name at a time from a descriptor that was taken before the trial began, and never
through a link (O_NOFOLLOW): what `openat2` promises with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, on any
kernel. Links are followed by hand, in the trial's own names. Nothing but regular files and folders is opened.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers import small
from kaos_backend.engine.workers.port import InputPath, OutputFile, SmallInput
from kaos_formats.folders import clean_up

MAX_DEPTH = 200
MAX_LINKS = 40  # as in the kernel
# Linked folders below linked folders: each level of them can multiply what a small output comes to.
MAX_NESTED = 1000
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CHANGED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Place = tuple[str, ...]
"""The names of an absolute path of the trial's."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What of the trial's files can become output, by the absolute paths at which the trial saw them.

    `out`: its output folder. `inputs`: path → (input name, host folder or small input). `links`: further
    paths of these that are symbolic links for the trial → where they lead.
    """

    out: str
    inputs: Mapping[str, tuple[str, Path | SmallInput]]
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file by an O_PATH descriptor, and where it really is."""

    fd: int
    stat: os.stat_result
    place: Place
    by_link: bool


class _Folder:
    """An open folder in the walk. `path` is its name in the output, `place` where it really is."""

    def __init__(self, fd: int, path: str, place: Place, linked: bool) -> None:
        """Takes `fd` over, O_PATH or not."""
        self.path, self.place, self.linked = path, place, linked
        self.fd = _reopen(fd, os.O_RDONLY | os.O_DIRECTORY, path)
        status = os.fstat(self.fd)
        self.device, self.identity = status.st_dev, (status.st_dev, status.st_ino)
        self.names = iter(sorted(os.listdir(self.fd)))  # noqa: PTH208


class FolderOutput:
    """The `port.Output` of a trial that writes into a folder of this host. Made before the trial begins."""

    def __init__(self, folder: Path, sight: Sight) -> None:
        """Raises OSError when the folder cannot be opened."""
        self._folder = folder
        self._out = _names(sight.out)
        self._inputs = {_names(at): target for at, target in sight.inputs.items()}
        self._links = {_names(at): target for at, target in sight.links.items()}
        self._made: list[Path] = []
        self._ways = (self._out, *self._inputs, *self._links)
        self._roots = {self._out: os.open(folder, _HANDLE | os.O_DIRECTORY)}

    def close(self) -> None:
        """See `port.Output`."""
        while self._roots:
            os.close(self._roots.popitem()[1])
        while self._made:
            clean_up(self._made.pop())

    def files(self) -> Iterator[OutputFile]:
        """See `port.Output`."""
        self._must_be_in_place()
        walk = [_Folder(self._roots[self._out], "", self._out, linked=False)]
        nested = 0
        try:
            while walk:
                folder = walk[-1]
                name = next(folder.names, None)
                if name is None:
                    os.close(walk.pop().fd)
                    continue
                path = f"{folder.path}/{name}"
                found = self._find(folder, name, path)
                try:
                    if stat.S_ISDIR(found.stat.st_mode):
                        nested += found.by_link and folder.linked
                        _must_end(path, found, walk, nested)
                        walk.append(_Folder(found.fd, path, found.place, found.by_link or folder.linked))
                    elif stat.S_ISREG(found.stat.st_mode):
                        fd = _reopen(found.fd, os.O_RDONLY, path)
                        with FileIO(fd) as data:
                            yield OutputFile(path, data, self._origin(found.place))
                    else:
                        kind = _KINDS.get(stat.S_IFMT(found.stat.st_mode), "no regular file")
                        raise Unknown(f"{shown(path)} is {kind}, which cannot be kept")
                finally:
                    os.close(found.fd)
        finally:
            for folder in walk:
                os.close(folder.fd)

    def _must_be_in_place(self) -> None:
        """What is at the folder's path must be what was handed out: without a sandbox a trial can swap it."""
        held = os.fstat(self._roots[self._out])
        try:
            there = os.lstat(self._folder)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise Unknown("the output folder was moved away; write into it, do not replace it")

    def _find(self, folder: _Folder, name: str, path: str) -> _Found:
        fd = _open(name, folder.fd, path)
        status = os.fstat(fd)
        if not stat.S_ISLNK(status.st_mode):
            if status.st_dev == folder.device:
                return _Found(fd, status, (*folder.place, name), by_link=False)
            os.close(fd)
            raise Unknown(f"{shown(path)} is a mount of another file system, which cannot be kept")
        try:
            target = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        place = self._resolve(path, folder.place, target)
        fd = self._open_place(path, place)
        return _Found(fd, os.fstat(fd), place, by_link=True)

    def _resolve(self, path: str, start: Place, target: str) -> Place:
        """Where a link at `start` leads, through further links, in the trial's names."""
        place = start
        links = 1
        todo = _todo(target)
        if target.startswith("/"):
            place = ()
        while todo:
            name = todo.pop()
            if name == "..":
                place = place[:-1]
                continue
            place = (*place, name)
            further = self._links.get(place) or self._link_at(path, place, target, last=not todo)
            if further is None:
                continue
            links += 1
            if links > MAX_LINKS:
                raise Unknown(f"{shown(path)} leads through more than {MAX_LINKS} links")
            place = () if further.startswith("/") else place[:-1]
            todo += _todo(further)
        if self._root_of(place) is None:
            raise _outside(path, target)
        return place

    def _link_at(self, path: str, place: Place, target: str, last: bool) -> str | None:
        """The target if there is a link at `place`; None for what else may be on the way."""
        if len(place) > 2 * MAX_DEPTH:
            raise Unknown(f"{shown(path)} is a link that is nested too deeply")
        if self._root_of(place) is None:
            # Above the folders of the trial (/pfs) there is nothing but the way to them.
            if not any(way[: len(place)] == place for way in self._ways):
                raise _outside(path, target)
            return None
        fd = self._open_place(path, place)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                return os.readlink("", dir_fd=fd)
            if not last and not stat.S_ISDIR(mode):
                raise Unknown(f"{shown(path)} is a link that leads nowhere")
            return None
        finally:
            os.close(fd)

    def _open_place(self, path: str, place: Place) -> int:
        """An O_PATH descriptor of what is at a place without links on the way; never follows one."""
        root = self._root_of(place)
        assert root is not None, "looked at before"
        fd = os.dup(self._root(root))
        for name in place[len(root) :]:
            parent = fd
            try:
                fd = _open(name, parent, path)
            finally:
                os.close(parent)
        return fd

    def _root(self, root: Place) -> int:
        if root not in self._roots:
            _, folder = self._inputs[root]
            if isinstance(folder, SmallInput):
                # Where the trial saw it, that of another may be by now.
                self._made.append(Path(tempfile.mkdtemp(dir=self._folder.parent)))
                small.write(folder, self._made[-1] / "input")
                folder = self._made[-1] / "input"
            self._roots[root] = os.open(folder, _HANDLE | os.O_DIRECTORY)
        return self._roots[root]

    def _root_of(self, place: Place) -> Place | None:
        return next((root for root in (self._out, *self._inputs) if place[: len(root)] == root), None)

    def _origin(self, place: Place) -> InputPath | None:
        root = self._root_of(place)
        if root is None or root == self._out:
            return None
        return InputPath(self._inputs[root][0], "/" + "/".join(place[len(root) :]))


def shown(path: str) -> str:
    """A path for a message: names that are no UTF-8 by their escapes, a long path by its two ends."""
    text = path.encode("utf-8", "backslashreplace").decode() or "/"
    return text if len(text) <= 160 else f"{text[:100]}…{text[-40:]}"


def _must_end(path: str, found: _Found, walk: list[_Folder], nested: int) -> None:
    """Refuse what would go on for ever, or nearly."""
    if len(walk) > MAX_DEPTH:
        raise Unknown(f"{shown(path)} is nested more than {MAX_DEPTH} folders deep, which cannot be kept")
    if found.by_link and (found.stat.st_dev, found.stat.st_ino) in {folder.identity for folder in walk}:
        raise Unknown(f"{shown(path)} is a link to a folder that holds it")
    if nested > MAX_NESTED:
        raise Unknown(f"{shown(path)}: more than {MAX_NESTED} linked folders inside linked folders")


def _outside(path: str, target: str) -> Unknown:
    return Unknown(
        f"{shown(path)} is a link to {shown(target)}, outside the output folder and the inputs; "
        "copy what it leads to"
    )


def _names(path: str) -> Place:
    return tuple(name for name in path.split("/") if name)


def _todo(target: str) -> list[str]:
    """The names of a link's target, the next one last."""
    return [name for name in reversed(target.split("/")) if name not in ("", ".")]


def _open(name: str, folder: int, path: str) -> int:
    try:
        return os.open(name, _HANDLE, dir_fd=folder)
    except OSError as error:
        raise _refused(error, path) from error


def _reopen(handle: int, flags: int, path: str) -> int:
    """The very file of an O_PATH descriptor, open: whatever its name leads to by now."""
    try:
        return os.open(f"/proc/self/fd/{handle}", flags | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(error, path) from error


def _refused(error: OSError, path: str) -> Exception:
    """The trial's fault by name, or the engine's own trouble (descriptors, memory, its disk) as it is."""
    if error.errno in _CHANGED:
        return Unknown(f"{shown(path)} leads nowhere: {error.strerror}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unknown(f"{shown(path)} cannot be read: {error.strerror}")
    return error
