"""Files and folders that can be made again: removed at any depth, put out of the way where they cannot be.

What user code, another program or a failing disk made of such a folder must never keep kaos from starting.
Nothing here follows a link or touches what is mounted somewhere below.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Of which `stat` counts, whatever the file system has.
_BLOCK_BYTES = 512

_log = logging.getLogger(__name__)

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ALL = os.R_OK | os.W_OK | os.X_OK
_GONE = ".gone-"
_NAMES = 100
SWEEP_AFTER_S = 5.0
"""What was put aside is removed after the start that did so, which makes files: ext4 is ten times slower at
that where others have just been removed."""


def remove_tree(path: Path) -> str:
    """Remove a file, a link or a folder of any depth and any modes; a missing one is fine.

    It is renamed first, so that `path` is free at once and never half there. What cannot be removed stays
    beside it under a name that starts with ".gone-", or at `path` if it cannot be renamed either; returns the
    reason then, else "".
    """
    try:
        return _remove(_set_aside(path))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _said(error)


def clean_up(path: Path) -> None:
    """`remove_tree`, for where nothing depends on it: what stays is told in the log."""
    if problem := remove_tree(path):
        _log.warning("%s could not be removed: %s", path, problem)


def folder(path: Path) -> Path:
    """A folder to write into, with what it has: `path`, after what else stands there was put aside.

    Another name beside it where that cannot be moved. Only for what can be made again.
    Raises OSError when the folder above allows neither.
    """
    return _folder(path, empty=False)


def empty_folder(path: Path) -> Path:
    """As `folder`, with nothing in it. What it had goes a moment later, in a thread: nobody waits for it.

    What such a thread does not come to is removed when the folder is next asked for.
    """
    return _folder(path, empty=True)


def appendable(path: Path) -> Path:
    """A file to append to, with what it has: `path`, after what is no file there was put aside.

    Another name beside it where that cannot be. Raises OSError when there is no room or no folder for it.
    """
    for candidate in _names(path):
        if os.path.lexists(candidate) and not candidate.is_file():
            clean_up(candidate)
        try:
            os.close(os.open(candidate, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except (PermissionError, IsADirectoryError) as error:
            _log.warning("%s cannot be written: %s", candidate, error.strerror)
        else:
            return candidate
    raise PermissionError(errno.EACCES, "cannot be written, nor anything beside it", str(path))


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in range(1, _NAMES):
        yield path.with_name(f"{path.name}.{number}")


def _folder(path: Path, *, empty: bool) -> Path:
    aside = [str(left) for left in path.parent.glob(f"{_GONE}{path.name[:64]}-*")]
    chosen: Path | None = None
    for candidate in _names(path):
        if chosen is None:
            chosen = candidate if _makes(candidate, empty=empty, aside=aside) else None
        elif os.path.lexists(candidate):
            clean_up(candidate)  # an earlier start had to turn to it
        else:
            break
    if chosen is None:
        raise PermissionError(errno.EACCES, "can neither be used nor be moved out of the way", str(path))
    if aside:
        later = threading.Timer(SWEEP_AFTER_S, _sweep, (aside,))
        later.daemon = True
        later.start()
    return chosen


def _makes(path: Path, *, empty: bool, aside: list[str]) -> bool:
    """Whether there is such a folder at `path` now. What stood there and has to go is added to `aside`."""
    if not empty and _usable(path):
        return True
    if os.path.lexists(path):
        if not path.is_dir():
            _log.warning("%s is made again: it was no folder", path)
        try:
            aside.append(_set_aside(path))
        except OSError as error:
            # Perhaps something is mounted there, on purpose: then it serves, once it is empty.
            if empty and _usable(path) and not any(remove_tree(entry) for entry in path.iterdir()):
                return True
            _log.warning("%s cannot be used: %s", path, _said(error))
            return False
    path.mkdir(mode=0o700, parents=True)
    return True


def _sweep(aside: list[str]) -> None:
    for path in aside:
        if problem := _remove(path):
            _log.warning("%s could not be removed: %s", path, problem)


def _usable(path: Path) -> bool:
    if path.is_dir() and not os.access(path, _ALL):
        try:
            path.chmod(0o700)
        except OSError:
            return False
    return path.is_dir() and os.access(path, _ALL)


def _set_aside(path: Path) -> str:
    """Where it is from now on, beside its old place. Raises OSError where it is as before."""
    aside = f"{path.parent}/{_GONE}{path.name[:64]}-{os.urandom(4).hex()}"
    os.rename(path, aside)  # noqa: PTH104 - each trial leaves a folder: what pathlib takes is most of the time
    return aside


def _remove(path: str) -> str:
    """Why something of it stays; "" when it is gone."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _remove_folder(path)
        else:
            os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _said(error)
    return ""


def _said(error: OSError) -> str:
    return f"{error.strerror} ({error.filename})" if error.filename else str(error)


def _remove_folder(path: str) -> None:
    """Raises OSError for the first thing that stays, after everything else is gone."""
    top = _open(path, None)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)  # noqa: PTH106


def _empty(top: int) -> None:
    """Remove all that is below an open folder.

    Folders are moved up to the top before they are emptied, so that neither the stack nor the number of
    descriptors nor the length of a path grows with the depth; and what something is mounted on cannot be
    moved, so that it is left alone.
    """
    mark = os.urandom(4).hex()
    names = (f"{_GONE}{mark}-{number}" for number in itertools.count())
    folders: deque[str] = deque()
    problems: list[OSError] = []

    def clear(at: int) -> None:
        with os.scandir(at) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in found:
            try:
                if is_folder:
                    folders.append(_move_up(name, at, next(names), top))
                else:
                    os.unlink(name, dir_fd=at)
            except OSError as error:
                problems.append(error)

    clear(top)
    while folders:
        name = folders.popleft()
        try:
            at = _open(name, top)
            try:
                clear(at)
            finally:
                os.close(at)
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _move_up(name: str, at: int, new_name: str, top: int) -> str:
    try:
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=top)
    except PermissionError:
        # One that may not be written to cannot get another parent. Whoever made it is gone by now.
        os.chmod(name, 0o700, dir_fd=at)
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=top)
    return new_name


def _open(name: str, at: int | None) -> int:
    """A descriptor of a folder that may be written to, if it can be made so."""
    try:
        fd = os.open(name, _OPEN, dir_fd=at)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=at)
        fd = os.open(name, _OPEN, dir_fd=at)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        with suppress(OSError):
            os.fchmod(fd, 0o700)
    return fd


def disk_bytes(path: Path) -> int:
    """What the regular files at and below `path` take of the disk, bytes; one with several names counts once,
    links are not followed, and what cannot be read counts nothing.
    """
    total, seen = 0, set[tuple[int, int]]()
    todo = [os.fspath(path)]
    while todo:
        at = todo.pop()
        try:
            with os.scandir(at) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                            seen.add((status.st_dev, status.st_ino))
                            total += status.st_blocks * _BLOCK_BYTES
        except OSError:
            continue
    return total
