"""Runs the commands of a build inside an image's root, by bubblewrap: the host is there, read-only.

Writable is the root alone, with the folders that programs install themselves into; what else is mounted has
to be named. Network is the host's unless it is switched off.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kaos_formats.sandbox import (
    NAMESPACES,
    RUN_PATHS,
    Layout,
    below,
    cover,
    intact,
    layout,
    prepare,
    private,
    scan,
)
from kaos_formats.sandbox import split_environment as split
from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.rootfs import MAX_DEPTH

# Folders of an image that its programs write to though the host has them too.
WRITABLE = (
    *(f"usr/local/{name}" for name in ("bin", "etc", "include", "lib", "sbin", "share", "src")),
    *("opt", "srv", "media", "var/lib", "var/cache", "var/log", "etc"),
)
LONGEST_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host at a path of the sandbox."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How sandboxes are made here. `hidden`: folders of the host that are kept out."""

    bwrap: str
    hidden: tuple[Path, ...] = ()

    @contextmanager
    def ready(self, root: Path, mounts: Sequence[Mount]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """Gives what starts a command in `root`; in the end what was put there to mount over is gone again.

        Nothing else may change `root` before the first command runs. Raises Refused for a root in which a
        link stands where something has to be mounted.
        """
        targets = [mount.target for mount in mounts if mount.target.split("/")[1] != "run"]
        with _scaffold(root, mounts) as plan:
            if not intact(root, (*plan.binds, *targets, "/dev", "/proc", "/run")):
                raise Refused("a symbolic link stands where something of the machine has to be mounted")
            yield partial(self._start, root, plan, mounts)

    def _start(
        self,
        root: Path,
        plan: Layout,
        mounts: Sequence[Mount],
        command: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        network: bool = True,
    ) -> subprocess.Popen[bytes]:
        outside, options = split(env)
        line = [self.bwrap, *NAMESPACES, *(() if network else ("--unshare-net",)), "--bind", str(root), "/"]
        for path in plan.binds:
            line += ["--ro-bind", path, path]
        line += cover((*self.hidden, *private()), plan.binds)
        line += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"]
        for name in RUN_PATHS:
            line += ["--ro-bind-try", name, name]
        for mount in mounts:
            line += ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.target]
        line += [*options, "--chdir", cwd, "--", "/bin/sh", "-c", 'exec "$@"', "sh", *command]
        return subprocess.Popen(
            line, env=outside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )


def follow(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> int:
    """Hand what it prints to `say`, line by line; its exit code."""
    with process:
        assert process.stdout is not None
        for line in iter(partial(process.stdout.readline, LONGEST_LINE), b""):
            # A progress bar overwrites its line.
            say(line.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2])
    return process.returncode


def visible(path: Path) -> bool:
    """Whether a path of the host is there in every sandbox anyway."""
    return below(path, [f"/{name}" for name in ("bin", "etc", "lib", "lib64", "opt", "sbin", "usr")])


@contextmanager
def _scaffold(root: Path, mounts: Iterable[Mount]) -> Iterator[Layout]:
    made: list[Path] = []
    links: dict[Path, str] = {}
    try:
        for name in WRITABLE:
            _make(root, name, made)
        plan = layout(scan(root), scan(Path("/")))
        wanted = [*plan.dirs, *(mount.target for mount in mounts if mount.source.is_dir())]
        for path in wanted:
            _make(root, path, made)
        files = [*plan.files, *(mount.target for mount in mounts if not mount.source.is_dir())]
        for path in files:
            _make(root, path.rpartition("/")[0], made)
            if not os.path.lexists(root / path.lstrip("/")):
                made.append(root / path.lstrip("/"))
                made[-1].touch()
        made += [root / path.lstrip("/") for _, path in plan.links if not os.path.lexists(root / path[1:])]
        links = {root / path.lstrip("/"): target for target, path in plan.links}
        prepare(root, plan)
        yield plan
    finally:
        for left in reversed(made):
            with suppress(OSError):
                if left.is_symlink():
                    if str(left.readlink()) == links.get(left):
                        left.unlink()
                elif left.is_dir():
                    left.rmdir()  # what the image keeps there stays
                elif left.stat().st_size == 0:
                    left.unlink()


def _make(root: Path, path: str, made: list[Path]) -> None:
    """A folder to mount over, and those above it; links are left to whoever checks them."""
    at = root
    for name in path.strip("/").split("/"):
        at = at / name
        if at.is_symlink():
            return
        if not at.exists():
            at.mkdir(mode=0o755)
            made.append(at)


def settle(root: Path, say: Callable[[str], None]) -> None:
    """After a command: what an image cannot hold goes, and everything can be read again.

    Raises Refused for folders that are nested too deeply.
    """
    top = len(root.parts)
    for folder, folders, names in os.walk(root):
        if len(Path(folder).parts) - top >= MAX_DEPTH:
            raise Refused(f"it made folders that are nested more than {MAX_DEPTH} deep")
        for name in (*folders, *names):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                _chmod(path, mode, (mode | 0o700) & ~0o6000)
            elif stat.S_ISREG(mode):
                _chmod(path, mode, (mode | 0o400) & ~0o6000)
            elif not stat.S_ISLNK(mode):
                path.unlink()
                say(f" ---> /{path.relative_to(root)} is left out: an image holds files, folders and links")


def _chmod(path: Path, old: int, new: int) -> None:
    if old != new:
        path.chmod(stat.S_IMODE(new))
