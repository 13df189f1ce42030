"""Walk a bundle's folder: which files belong to it, with what the file system says of each.

Symlinks that stay inside the bundle are followed; what leaves it, dangles or runs in a circle is refused, as
are sockets, pipes and devices. All offenders are found before anything is said, so that one run tells all.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kaos_cli.errors import KaosError
from kaos_cli.ignore import IGNORE_FILE, Ignored, is_virtual_environment
from kaos_cli.text import printable
from kaos_formats.paths import MAX_PATH_BYTES

MAX_LINKED_FOLDERS = 1000
MAX_SHOWN = 5


class Found(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One file. ``path`` is relative to the bundle's root with ``/``; times in nanoseconds; size in bytes."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool


@dataclass
class Walk:
    """What a walk found: files (unsorted), what was left out, and what must not be in a bundle."""

    files: list[Found] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    linked: dict[str, str] = field(default_factory=dict)
    """Where in the bundle's folder files lie that are found through symlinks."""
    linked_folders: int = 0


def real_folder(root: Path) -> Path:
    """The real path of a bundle's folder; raises KaosError (invalid_bundle) if there is none."""
    top = os.path.realpath(root)
    if not os.path.isdir(top):  # noqa: PTH112
        what = "is no folder" if os.path.exists(top) else "does not exist"  # noqa: PTH110
        raise KaosError(
            "invalid_bundle", f"{root} {what}", hint="give the folder of the bundle", path=str(root)
        )
    return Path(top)


def walk(root: Path, ignored: Ignored) -> Walk:
    """All files below ``root``. Raises KaosError (invalid_bundle): no folder, or what cannot be packed."""
    top = str(real_folder(root))
    found = Walk()
    _folder(found, top, top, "", ignored, (top,))
    if found.problems:
        shown = "\n".join("  " + problem for problem in found.problems[:MAX_SHOWN])
        more = len(found.problems) - MAX_SHOWN
        raise KaosError(
            "invalid_bundle",
            f"{root} has files that cannot be packed:\n{shown}"
            + (f"\n  and {more} more" if more > 0 else ""),
            hint="remove them or leave them out with .kaosignore",
            path=str(root),
        )
    return found


def _folder(
    found: Walk, top: str, folder: str, prefix: str, ignored: Ignored, chain: tuple[str, ...]
) -> None:
    """``chain``: the real paths of the folders we are in; a link back to one of them would never end."""
    if len(prefix) > MAX_PATH_BYTES:
        # No file in there could be deployed; and it bounds how deep this goes.
        found.problems.append(f"{printable(prefix[:40])}… has folders in it whose path is too long")
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        found.problems.append(f"{printable(prefix) or '.'}: {error.strerror}")
        return
    add = found.files.append
    real = folder[len(top.rstrip("/")) + 1 :] + "/" if folder != top else ""
    linked = real != prefix
    folders: list[tuple[str, str, tuple[str, ...]]] = []
    for entry in entries:
        path = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if ignored(path, is_folder):
            if path != IGNORE_FILE:  # nobody misses that one
                found.ignored.append(path)
            continue
        if is_folder:
            folders.append((entry.path, path, (*chain, entry.path)))
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            found.problems.append(f"{printable(path)}: {error.strerror}")
            continue
        mode = status.st_mode
        if stat.S_ISREG(mode):
            if linked:
                found.linked[path] = real + entry.name
            add(
                Found(
                    path,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                    status.st_ino,
                    mode & 0o111 != 0,
                )
            )
        elif stat.S_ISLNK(mode):
            _link(found, top, entry.path, path, ignored, chain, folders)
        else:
            found.problems.append(f"{printable(path)} is {_kind(mode)}, not a file")
    for below, path, below_chain in folders:
        if is_virtual_environment(below):
            found.ignored.append(path)
        else:
            _folder(found, top, below, path + "/", ignored, below_chain)


def _link(
    found: Walk,
    top: str,
    link: str,
    path: str,
    ignored: Ignored,
    chain: tuple[str, ...],
    folders: list[tuple[str, str, tuple[str, ...]]],
) -> None:
    shown = printable(path)
    try:
        target = os.path.realpath(link, strict=True)
        status = os.stat(target)  # noqa: PTH116
    except OSError:
        found.problems.append(f"{shown} is a symlink to nowhere: {printable(os.readlink(link))}")  # noqa: PTH115
        return
    if target != top and not target.startswith(top.rstrip("/") + "/"):
        found.problems.append(f"{shown} is a symlink that leaves the bundle: {printable(target)}")
    elif stat.S_ISDIR(status.st_mode):
        if target in chain:
            found.problems.append(f"{shown} is a symlink to a folder that it is in")
        elif ignored(path, True):
            found.ignored.append(path)
        elif found.linked_folders == MAX_LINKED_FOLDERS:
            found.problems.append(f"{shown} is one of more than {MAX_LINKED_FOLDERS} symlinks to folders")
        else:
            found.linked_folders += 1
            folders.append((target, path, (*chain, target)))
    elif stat.S_ISREG(status.st_mode):
        executable = status.st_mode & 0o111 != 0
        found.linked[path] = target[len(top.rstrip("/")) + 1 :]
        found.files.append(
            Found(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, executable)
        )
    else:
        found.problems.append(f"{shown} is a symlink to {_kind(status.st_mode)}, not to a file")


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    ):
        if test(mode):
            return name
    return "something special"
