"""Seals: what is known of a folder of inputs that is laid out, and how it is told that nobody changed it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec

from kaos_backend.engine.store.trees.layout import FILE_MODE, FOLDER_MODE

SUFFIX = ".seal"


class Seal(msgspec.Struct, frozen=True):
    """What a folder was made of, written down when it was complete: without one it is worth nothing.

    `root` and `path`: the tree that is laid out, in hex. `commits`: those it was used for last. `linked`: the
    objects (hex) whose files are the store's, with their inodes. `state`: what `state_of` said.
    """

    root: str
    path: str
    commits: list[str]
    linked: dict[str, int]
    state: str


_decode = msgspec.json.Decoder(Seal).decode


def place(folder: Path) -> Path:
    """Where a folder's seal is."""
    return folder.with_name(f"{folder.name}{SUFFIX}")


def read(folder: Path) -> Seal | None:
    """None where there is none, or half of one."""
    try:
        return _decode(place(folder).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None


def write(folder: Path, seal: Seal) -> None:
    """Not synced; one that a crash cuts short is none."""
    place(folder).write_bytes(msgspec.json.encode(seal))


def state_of(folder: Path, now_ns: int, *, shared: bool) -> str:
    """What is compared later to see that a folder just laid out was left alone; see `unchanged`."""
    return str(now_ns) if shared else _digest(folder)


def unchanged(folder: Path, state: str, *, shared: bool) -> bool:
    """Whether a folder is as it was when `state` was taken.

    One that code could write to is compared by a digest of what `stat` says of each file, ctime included,
    which is nobody's to set. In one that is `shared`, files get and lose other names, which sets their ctime,
    and only the owner of this machine can have been at work: nothing in it may be newer than `state`.
    """
    if not shared:
        return _digest(folder) == state
    return state.isdecimal() and _all_older(folder, int(state))


def _all_older(top: Path, moment_ns: int) -> bool:
    todo = [os.fspath(top)]
    try:
        while todo:
            at = todo.pop()
            status = os.lstat(at)
            if stat.S_IMODE(status.st_mode) != FOLDER_MODE or status.st_mtime_ns > moment_ns:
                return False
            with os.scandir(at) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if status.st_mode != stat.S_IFREG | FILE_MODE or status.st_mtime_ns > moment_ns:
                        return False
    except OSError:
        return False
    return True


def _digest(top: Path) -> str:
    """Of what `stat` says of a folder and of all that is below it; empty where it cannot be read."""
    digest = hashlib.blake2b(digest_size=32)
    todo = [os.fspath(top)]
    try:
        while todo:
            at = todo.pop()
            with os.scandir(at) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            said = [_said("", os.lstat(at))]
            for entry in entries:
                said.append(_said(entry.name, entry.stat(follow_symlinks=False)))
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
            digest.update(repr(said).encode())
    except OSError:
        return ""
    return digest.hexdigest()


def _said(name: str, status: os.stat_result) -> tuple[str, int, int, int, int, int]:
    return name, status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
