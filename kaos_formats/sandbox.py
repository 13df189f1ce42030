"""What of the host the programs of an image see without a container: for trials, and for the RUNs of a build.

The image's files are the root. The host's system folders are mounted over it read-only, name by name: where
the image has a folder of the same name the two are merged, and a file of the image wins. Home folders, /var,
/run, /mnt: simply not there.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kaos_formats import proxies

# Folders of the host that programs need; everything else of the host stays outside.
SYSTEM = ("bin", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "sbin", "sys", "usr")
# Folders that programs expect to find in any root, empty at first and the worker's own.
SCAFFOLD = ("dev", "home", "mnt", "pfs", "proc", "root", "run", "tmp", "var/tmp")
# Below /run, which is private: name resolution on systemd machines, and what NixOS keeps there.
RUN_PATHS = ("/run/systemd/resolve", "/run/current-system", "/run/opengl-driver", "/mnt/wsl/resolv.conf")
# Where a host keeps what is for its root alone, which a sandbox that root makes would read: /etc at any
# depth, of the others what lies at their top.
_PRIVATE_BELOW = "/etc"
_PRIVATE_IN = ("/opt", "/sys/fs", "/sys/kernel")
# It is looked at anew so often at most (seconds): a hundred workers that start together look once.
_LOOKED_FOR_S = 5.0
NAMESPACES = (
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--cap-drop",
    "ALL",
)
# Of the dynamic loader and the C library: bubblewrap itself would load what they name, outside its sandbox.
LOADER = re.compile(r"LD_|GLIBC_TUNABLES$|GCONV_PATH$|LOCPATH$")
# What a program needs of the machine it runs on; nothing else of the engine's environment reaches user code.
HOST = re.compile(
    r"LANG|LANGUAGE|LC_[A-Z]+|TZ|LD_LIBRARY_PATH|CUDA_HOME|CUDA_PATH|NIX_SSL_CERT_FILE|SSL_CERT_(FILE|DIR)"
    rf"|[A-Z]+_CA_BUNDLE|{proxies.PATTERN}"
)

Listing = Callable[[str], Mapping[str, str]]
"""Folder → {entry name: "d" | "f" | "l:<link target>"}; empty when it cannot be read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What to prepare in the private root, and what to mount over it (same path on both sides)."""

    dirs: tuple[str, ...]
    files: tuple[str, ...]
    links: tuple[tuple[str, str], ...]  # (target, path)
    binds: tuple[str, ...]


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


def private(host: Path = Path("/")) -> tuple[Path, ...]:
    """What of the system folders not everybody on the host may read: /etc/shadow, the keys of ssh.

    Without capabilities an engine's user sees of them what it always sees; it is root whose sandboxes would
    hand them out, as the files are its own. So for any other user this is empty.
    """
    if os.geteuid() != 0:
        return ()
    return _private(host, int(time.monotonic() / _LOOKED_FOR_S))


@lru_cache(maxsize=1)
def _private(host: Path, _moment: int) -> tuple[Path, ...]:
    found: list[Path] = []
    folders = [host / name[1:] for name in (_PRIVATE_BELOW, *_PRIVATE_IN)]
    for folder in folders:  # grows meanwhile
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    is_folder = stat.S_ISDIR(info.st_mode)
                    if is_folder and info.st_mode & 0o005 != 0o005:
                        found.append(Path(entry.path))
                    elif is_folder and folder.is_relative_to(host / _PRIVATE_BELOW[1:]):
                        folders.append(Path(entry.path))
                    elif stat.S_ISREG(info.st_mode) and not info.st_mode & 0o004 and info.st_size:
                        found.append(Path(entry.path))
        except OSError:
            continue
    return tuple(found)


def cover(hidden: Iterable[Path], binds: Collection[str]) -> list[str]:
    """Options of bubblewrap that keep `hidden` out of sight, as far as `binds` would show it.

    A folder is empty, and in a file's place is /dev/null, which most sandboxes may not even open.
    """
    options: list[str] = []
    for path in hidden:
        if not below(path, binds):
            continue
        if path.is_dir():
            options += ["--tmpfs", str(path)]
        elif path.exists():
            options += ["--ro-bind", os.devnull, str(path)]
    return options


def identities(paths: Iterable[Path]) -> tuple[int, ...]:
    """What tells whether one of them has been replaced: then the kernel takes away what was mounted on it,
    and a sandbox that covered it does not any more.
    """
    found = []
    for path in paths:
        try:
            found.append(path.stat().st_ino)
        except OSError:
            found.append(0)
    return tuple(found)


def below(path: Path, folders: Iterable[str | Path]) -> bool:
    """Whether it is one of `folders` or in one; all of them absolute, texts without a doubled slash."""
    # As text: every start of a trial asks this dozens of times.
    text = f"{path}/"
    return any(text.startswith(f"{str(folder).rstrip('/')}/") for folder in folders)


def visible_path(path: str) -> str:
    """The elements of the host's PATH that exist in a sandbox too."""
    return ":".join(item for item in path.split(":") if below(Path(item), (f"/{name}" for name in SYSTEM)))


def split_environment(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """(what bubblewrap may be started with, its options for the rest)."""
    mine = {name: value for name, value in env.items() if not LOADER.match(name)}
    options = [word for name in env if name not in mine for word in ("--setenv", name, env[name])]
    return mine, options
