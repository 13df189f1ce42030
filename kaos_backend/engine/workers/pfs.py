"""What a worker's containers, or sandboxes, see at /pfs.

Mounts are fixed when one is made, and making one costs as much as many short trials. So small inputs (the
parameters of a trial) are written into a folder that the host fills anew for every datum; large ones (data)
are mounted as they are, and it is made again only when one of these changes.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from kaos_backend.engine.workers import small
from kaos_backend.engine.workers.output import Sight
from kaos_backend.engine.workers.port import DatumRun, SmallInput
from kaos_formats.folders import clean_up


class Pfs:
    """The folders of one worker: `root` becomes /pfs, `out` becomes /pfs/out."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out = folder / "pfs", folder / "out"
        (self.root / "out").mkdir(parents=True)
        self.out.mkdir()
        # Whoever the image runs as writes there.
        self.out.chmod(0o777)
        self._written: dict[str, SmallInput] = {}
        self._empty = True

    def to_mount(self, run: DatumRun) -> dict[str, Path]:
        """The inputs of `run` that have to be mounted."""
        return {name: input_ for name, input_ in run.inputs.items() if isinstance(input_, Path)}

    def fill(self, run: DatumRun) -> None:
        """Make ready for `run`: its small inputs, its output, nothing of an earlier run."""
        wanted = {name: input_ for name, input_ in run.inputs.items() if isinstance(input_, SmallInput)}
        mounted = run.inputs.keys() - wanted
        stay = [name for name, input_ in self._written.items() if wanted.get(name) is input_]
        keep = {"out", *mounted, *stay}
        for name in os.listdir(self.root):  # noqa: PTH208
            if name not in keep:
                if self._written.pop(name, None) is None:
                    clean_up(self.root / name)
                else:
                    small.remove(self.root / name)
        for name in mounted:
            (self.root / name).mkdir(exist_ok=True)
        for name, input_ in wanted.items():
            if name not in self._written:
                small.write(input_, self.root / name)
                self._written[name] = input_
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
