"""What a worker's containers, or sandboxes, see at /pfs.

Mounts are fixed when one is made, and making one costs as much as many short trials. So small inputs (the
parameters of a trial) are copied into a folder that the host fills anew for every datum; large ones (data)
are mounted as they are, and it is made again only when one of these changes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from kaos_backend.engine.workers.output import Sight
from kaos_backend.engine.workers.port import DatumRun
from kaos_formats.folders import clean_up

SMALL_FILES = 64
SMALL_BYTES = 256 << 10


class Pfs:
    """The folders of one worker: `root` becomes /pfs, `out` becomes /pfs/out."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out = folder / "pfs", folder / "out"
        (self.root / "out").mkdir(parents=True)
        self.out.mkdir()
        # Whoever the image runs as writes there.
        self.out.chmod(0o777)
        self._copied: dict[str, Path] = {}
        self._empty = True

    def to_mount(self, run: DatumRun, mounted: Mapping[str, Path]) -> dict[str, Path]:
        """The inputs of `run` that have to be mounted, given what is mounted now."""
        return {
            name: folder
            for name, folder in run.inputs.items()
            if self._copied.get(name) != folder and (mounted.get(name) == folder or not _is_small(folder))
        }

    def fill(self, run: DatumRun, mounted: Mapping[str, Path]) -> None:
        """Make ready for `run`: its other inputs as copies, its output, nothing of an earlier run."""
        wanted = {name: folder for name, folder in run.inputs.items() if name not in mounted}
        keep = {"out", *mounted, *(name for name, at in self._copied.items() if wanted.get(name) == at)}
        for name in os.listdir(self.root):  # noqa: PTH208
            if name not in keep:
                if self._copied.pop(name, None) is None:
                    clean_up(self.root / name)
                else:
                    _remove_copy(os.path.join(self.root, name))  # noqa: PTH118
        for name in mounted:
            (self.root / name).mkdir(exist_ok=True)
        for name, folder in wanted.items():
            if name not in self._copied:
                _copy(os.fspath(folder), os.path.join(self.root, name))  # noqa: PTH118
                self._copied[name] = folder
        if not self._empty:
            for entry in self.out.iterdir():
                clean_up(entry)
        self._empty = False
        # What an earlier trial left, where somebody looks at it.
        for entry in list(run.out.iterdir()):
            _open_to_all(entry.rename(self.out / entry.name))

    def hand_over(self, out: Path) -> None:
        """Move what was written to /pfs/out into the empty folder `out`, on the same disk."""
        # Its mode is for whoever writes there to change.
        self.out.chmod(0o777)
        for entry in os.scandir(self.out):
            _move(entry, out / entry.name)
        self._empty = True

    def sight(self, run: DatumRun) -> Sight:
        """Where the run sees its files."""
        return Sight("/pfs/out", {f"/pfs/{name}": (name, folder) for name, folder in run.inputs.items()})


def _copy(folder: str, to: str) -> None:
    """A folder of few and small files, whose modes are kept; by fewer calls than shutil's."""
    os.mkdir(to)  # noqa: PTH102
    with os.scandir(folder) as entries:
        for entry in entries:
            path = os.path.join(to, entry.name)  # noqa: PTH118
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), path)  # noqa: PTH115, PTH211
            elif entry.is_dir():
                _copy(entry.path, path)
            else:
                with open(entry.path, "rb", 0) as source, open(path, "xb", 0) as copy:  # noqa: PTH123
                    copy.write(source.read())
                    os.fchmod(copy.fileno(), stat.S_IMODE(entry.stat().st_mode))
    os.chmod(to, stat.S_IMODE(os.stat(folder).st_mode))  # noqa: PTH101, PTH116


def _remove_copy(folder: str) -> None:
    """What `_copy` made, where nobody else can write."""
    os.chmod(folder, stat.S_IRWXU)  # noqa: PTH101
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_copy(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
    os.rmdir(folder)  # noqa: PTH106


def _move(entry: os.DirEntry[str], to: Path) -> None:
    try:
        os.rename(entry.path, to)  # noqa: PTH104 - names that are no UTF-8
    except PermissionError:
        # A folder is written to when it gets another parent.
        mode = entry.stat(follow_symlinks=False).st_mode
        os.chmod(entry.path, mode | stat.S_IRWXU)  # noqa: PTH101
        os.rename(entry.path, to)  # noqa: PTH104
        to.chmod(stat.S_IMODE(mode))


def _open_to_all(path: Path) -> None:
    """Whoever the image runs as may change it, as what it writes; not what lies too deep for a path."""
    todo = [os.fspath(path)]
    while todo:
        entry = todo.pop()
        try:
            kind = os.lstat(entry).st_mode
            if stat.S_ISLNK(kind):
                continue
            os.chmod(entry, 0o777 if stat.S_ISDIR(kind) else 0o666)  # noqa: PTH101
            if stat.S_ISDIR(kind):
                todo += [os.path.join(entry, name) for name in os.listdir(entry)]  # noqa: PTH118, PTH208
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise


def _is_small(folder: Path) -> bool:
    """Whether to copy it costs next to nothing; looks at no more entries than that."""
    files = size = 0
    todo = [os.fspath(folder)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                files += 1
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_size
                if files > SMALL_FILES or size > SMALL_BYTES:
                    return False
    return True
