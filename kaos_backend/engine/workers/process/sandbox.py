"""What a sandboxed datum sees, as the argument vector of bubblewrap. Pure, but for `probe` and `scan`.

The sandbox's root is the worker's private, writable copy of the image's files. The host's system folders are
mounted over it read-only, name by name: where the image has a folder of the same name the two are merged, and
a file of the image wins. Home folders, /var, /run, /mnt, the store: simply not there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# Folders of the host that programs need; everything else of the host stays outside.
SYSTEM = ("bin", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "sbin", "sys", "usr")
# Folders that programs expect to find in any root, empty at first and the worker's own.
SCAFFOLD = ("dev", "home", "mnt", "pfs", "proc", "root", "run", "tmp", "var/tmp")
# Below /run, which is private: name resolution on systemd machines, and what NixOS keeps there.
RUN_PATHS = ("/run/systemd/resolve", "/run/current-system", "/run/opengl-driver", "/mnt/wsl/resolv.conf")
NAMESPACES = (
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--cap-drop",
    "ALL",
)
_SH = "/bin/sh"
GPU_NODES = ("nvidia", "dri", "kfd", "dxg")

Listing = Callable[[str], Mapping[str, str]]
"""Folder → {entry name: "d" | "f" | "l:<link target>"}; empty when it cannot be read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What to prepare in the private root, and what to mount over it (same path on both sides)."""

    dirs: tuple[str, ...]
    files: tuple[str, ...]
    links: tuple[tuple[str, str], ...]  # (target, path)
    binds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """One datum's sight of the machine; host paths are absolute."""

    root: Path
    binds: Sequence[str]
    hidden: Sequence[Path]
    extra: Sequence[Path]
    inputs: Mapping[str, Path]
    out: Path
    workdir: str
    devices: Sequence[str] = ()
    shm_bytes: int | None = None
    secrets: Mapping[str, Path] = field(default_factory=dict)

    @property
    def mount_points(self) -> tuple[str, ...]:
        """Where things are mounted, as paths of the sandbox."""
        return (*self.binds, *map(str, self.extra), "/dev", "/pfs", "/proc", *RUN_PATHS, *self.secrets)


def scan(root: Path) -> Listing:
    """A `Listing` of the real folder tree below `root`."""

    def listing(folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            with os.scandir(root / folder.lstrip("/")) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        found[entry.name] = f"l:{Path(entry.path).readlink()}"
                    elif entry.is_dir():
                        found[entry.name] = "d"
                    elif entry.is_file():
                        found[entry.name] = "f"
        except OSError:
            return {}
        return found

    return listing


def layout(image: Listing, host: Listing) -> Layout:
    """Merge the host's system folders with the image's files."""
    dirs: list[str] = []
    files: list[str] = []
    links: list[tuple[str, str]] = []
    binds: list[str] = []

    def merge(folder: str) -> None:
        own = image(folder)
        for name, kind in sorted(host(folder).items()):
            if folder == "/" and name not in SYSTEM:
                continue
            path = f"{folder.rstrip('/')}/{name}"
            if name not in own:
                if kind.startswith("l:"):
                    links.append((kind[2:], path))
                else:
                    (dirs if kind == "d" else files).append(path)
                    binds.append(path)
            elif own[name] == "d" and kind != "f":
                merge(path)

    merge("/")
    own = image("/")
    dirs += [f"/{name}" for name in SCAFFOLD if own.get(name.split("/")[0], "d") == "d"]
    return Layout(tuple(dirs), tuple(files), tuple(links), tuple(binds))


def prepare(root: Path, plan: Layout) -> None:
    """Make the mount points and links of `plan` in a worker's private root."""
    for path in plan.dirs:
        (root / path[1:]).mkdir(parents=True, exist_ok=True)
    for path in plan.files:
        (root / path[1:]).touch()
    for target, path in plan.links:
        if not (root / path[1:]).is_symlink():
            (root / path[1:]).symlink_to(target)
    tmp = root / "tmp"
    if tmp.is_dir() and not tmp.is_symlink():
        tmp.chmod(0o1777)


def intact(root: Path, targets: Iterable[str]) -> bool:
    """Whether no folder on the way to the mount points became a symbolic link.

    The root is writable for user code, between two datums too; bubblewrap would follow such a link while it
    still sees the host's files, and make folders there.
    """
    seen: set[Path] = set()
    for target in targets:
        path = root / target.strip("/")
        for folder in (path, *path.parents):
            if folder == root or folder in seen:
                break
            if folder.is_symlink():
                return False
            seen.add(folder)
    return True


def argv(bwrap: str, view: View, command: Iterable[str]) -> list[str]:
    """The command line that runs `command` in its view of the machine.

    `sh` executes the command so that a missing program ends with 127 and one that cannot be run with 126, as
    everywhere; bubblewrap itself would end with 1. A command that is `sh` needs no other.
    """
    first, *rest = command
    line = [bwrap, *NAMESPACES, "--bind", str(view.root), "/"]
    for path in view.binds:
        line += ["--ro-bind", path, path]
    for folder in view.hidden:
        if _below(folder, view.binds):
            line += ["--tmpfs", str(folder)]
    line += ["--proc", "/proc", "--dev", "/dev"]
    if view.shm_bytes is not None:
        line += ["--size", str(view.shm_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108
    for device in view.devices:
        line += ["--dev-bind", device, device]
    for name in RUN_PATHS:
        line += ["--ro-bind-try", name, name]
    for needed in view.extra:
        if not _below(needed, view.binds) or _below(needed, view.hidden):
            line += ["--ro-bind", str(needed), str(needed)]
    for path, source in sorted(view.secrets.items()):
        line += ["--ro-bind", str(source), path]
    line += ["--tmpfs", "/pfs"]
    for name, source in sorted(view.inputs.items()):
        line += ["--ro-bind", str(source), f"/pfs/{name}"]
    line += ["--bind", str(view.out), "/pfs/out", "--remount-ro", "/pfs"]
    line += ["--chdir", view.workdir, "--"]
    if first in ("sh", _SH):
        return [*line, _SH, *rest]
    return [*line, _SH, "-c", 'exec "$@"', "sh", first, *rest]


def _below(path: Path, folders: Iterable[str | Path]) -> bool:
    return any(PurePosixPath(path).is_relative_to(PurePosixPath(folder)) for folder in folders)


def visible_path(path: str) -> str:
    """The elements of the host's PATH that exist in a sandbox too."""
    return ":".join(item for item in path.split(":") if _below(Path(item), (f"/{name}" for name in SYSTEM)))


def gpu_devices() -> tuple[str, ...]:
    """Device nodes that GPU libraries open. All or none: they number devices by what they can open."""
    return tuple(sorted(str(node) for node in Path("/dev").iterdir() if node.name.startswith(GPU_NODES)))


def probe(bwrap: str | None, shm: bool = True) -> str | None:
    """None when bubblewrap can make sandboxes here, else the reason why not, in a line."""
    if bwrap is None:
        return "bubblewrap (bwrap) is not installed"
    line = [bwrap, *NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    if shm:
        line += ["--size", "1048576", "--tmpfs", "/dev/shm"]  # noqa: S108
    try:
        done = subprocess.run(
            [*line, "--", "/bin/sh", "-c", ":"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run here: {error}"
    if done.returncode == 0:
        return None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"bubblewrap does not work here: {said[-1] if said else f'exit code {done.returncode}'}"
