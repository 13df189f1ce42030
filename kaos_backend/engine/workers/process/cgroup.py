"""Limits that the kernel keeps: a control group for each worker, where this user may make one (v1 or v2).

https://docs.kernel.org/admin-guide/cgroup-v2.html and the folder cgroup-v1 beside it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kaos_backend.engine.workers.port import Grant

MOUNTS = Path("/proc/self/mountinfo")
MEMBERSHIP = Path("/proc/self/cgroup")
PERIOD_US = 100_000
_LEAST_QUOTA_US = 1000
_CONTROLLERS = ("memory", "cpu")
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """One worker's. `version`: of the interface; `folders`: controller → its folder of the group."""

    version: int
    folders: Mapping[str, Path]

    @property
    def members(self) -> list[str]:
        """Files that a process writes "0" into to enter the group, with all that it will start."""
        return [str(folder / "cgroup.procs") for folder in dict.fromkeys(self.folders.values())]

    @property
    def ooms(self) -> str:
        """The file whose line "oom_kill" counts what the kernel has ended in the group for lack of memory."""
        return str(self.folders["memory"] / ("memory.events" if self.version == 2 else "memory.oom_control"))

    def limit(self, grant: Grant) -> None:
        """Hold whatever is in the group to `grant`. Raises OSError."""
        quota = max(_LEAST_QUOTA_US, round(grant.cpu * PERIOD_US))
        memory, cpu = self.folders["memory"], self.folders["cpu"]
        if self.version == 2:
            _write(memory / "memory.max", "max" if grant.memory_bytes is None else str(grant.memory_bytes))
            with suppress(FileNotFoundError):  # where the kernel counts no swap
                _write(memory / "memory.swap.max", "max" if grant.memory_bytes is None else "0")
            _write(cpu / "cpu.max", f"{quota} {PERIOD_US}")
            return
        # With swap it may never be less than without: it is raised first and lowered last.
        both = memory / "memory.memsw.limit_in_bytes"
        with suppress(FileNotFoundError):
            _write(both, "-1")
        limit = "-1" if grant.memory_bytes is None else str(grant.memory_bytes)
        _write(memory / "memory.limit_in_bytes", limit)
        with suppress(FileNotFoundError):
            _write(both, limit)
        _write(cpu / "cpu.cfs_period_us", str(PERIOD_US))
        _write(cpu / "cpu.cfs_quota_us", str(quota))

    def close(self) -> None:
        """Remove the group; one that something is still in stays for the next start."""
        for folder in dict.fromkeys(self.folders.values()):
            _remove(folder)


class Groups:
    """The control groups of one engine, whose names begin alike. `owner`: the engine's own folder.

    Raises OSError when this user may make none, or none that limits memory and cpu.
    """

    def __init__(self, owner: Path, mounts: Path = MOUNTS, membership: Path = MEMBERSHIP) -> None:
        self.version, self._parents = _hierarchies(mounts.read_text(), membership.read_text())
        self._prefix = f"kaos-{hashlib.sha256(os.fsencode(owner)).hexdigest()[:16]}-"
        # What an engine that was killed left.
        for parent in dict.fromkeys(self._parents.values()):
            for left in parent.glob(f"{self._prefix}*"):
                _remove(left)
        # Whether it works is known when it has been done.
        probe = self.make("probe")
        try:
            probe.limit(Grant(1.0, (), 1 << 30, ()))
        finally:
            probe.close()

    def make(self, name: str) -> Group:
        """A group without limits. Raises OSError."""
        folders = {
            controller: parent / f"{self._prefix}{name}" for controller, parent in self._parents.items()
        }
        for folder in dict.fromkeys(folders.values()):
            folder.mkdir(exist_ok=True)
        return Group(self.version, folders)


def _hierarchies(mounts: str, membership: str) -> tuple[int, dict[str, Path]]:
    """The version that limits memory and cpu here, and for each of the two where groups can be made."""
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            for controller in _CONTROLLERS:
                if controller in options.split(","):
                    found[controller] = _below(Path(point), root, own.get(controller, "/"))
        elif kind == "cgroup2":
            for folder in (_below(Path(point), root, own.get("", "/")), Path(point)):
                # Only a group without processes of its own, or the root, may hand controllers on.
                if {*_CONTROLLERS} <= _words(folder / "cgroup.subtree_control"):
                    return 2, dict.fromkeys(_CONTROLLERS, folder)
    if {*found} != {*_CONTROLLERS}:
        raise OSError(errno.ENOTSUP, "no control groups for memory and cpu are mounted")
    return 1, found


def _below(point: Path, root: str, path: str) -> Path:
    """Where a group is below a mount that shows the hierarchy from `root` on; else the mount's top."""
    inside = path.removeprefix(root.rstrip("/")).lstrip("/")
    folder = point / inside
    return folder if folder.is_dir() else point


def _words(file: Path) -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set()


def _write(file: Path, text: str) -> None:
    # Never made: a missing file is a controller that does not work here.
    fd = os.open(file, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _remove(folder: Path) -> None:
    until = time.monotonic() + _CLOSE_S
    while True:
        try:
            folder.rmdir()
        except OSError as error:
            # What was just killed leaves in a moment.
            if error.errno != errno.EBUSY or time.monotonic() > until:
                return
            time.sleep(0.01)
        else:
            return
