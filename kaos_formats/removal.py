"""The one way to remove a folder tree, in whatever shape a program left it."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import secrets
import stat
from pathlib import Path

log = logging.getLogger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; what is not there is fine.

    Any depth of folders, any modes of them, with two descriptors and no recursion: a folder inside a folder
    is moved up to the top first. Links are removed, never followed; other file systems are left alone.

    Raises:
        OSError: the first thing that did not go. Everything else is gone then.
    """
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not is_folder:
        path.unlink(missing_ok=True)
        return
    try:
        top = _open(str(path), None)
    except FileNotFoundError:
        return
    try:
        trouble = _empty(top)
    finally:
        os.close(top)
    if trouble is not None:
        trouble.filename = trouble.filename or str(path)
        raise trouble
    path.rmdir()


def discard_tree(path: Path) -> None:
    """`remove_tree`, for where nothing depends on it: what did not go is logged."""
    try:
        remove_tree(path)
    except OSError as error:
        log.warning("%s could not be removed: %s", path, error)


def _empty(top: int) -> OSError | None:
    """Remove all that is in the open folder `top`; the first thing that did not go."""
    trouble: OSError | None = None
    device = os.fstat(top).st_dev
    mark = f".removing-{secrets.token_hex(8)}-"
    number = itertools.count()
    todo = ["."]
    while todo:
        name = todo.pop()
        try:
            folder = _open(name, top)
        except OSError as error:
            trouble = trouble or error
            continue
        try:
            if os.fstat(folder).st_dev != device:
                raise OSError(errno.EBUSY, "another file system is mounted there", name)
            with os.scandir(folder) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for below, is_folder in found:
                try:
                    if not is_folder:
                        os.unlink(below, dir_fd=folder)
                    elif name == ".":
                        todo.append(below)
                    else:
                        todo.append(f"{mark}{next(number)}")
                        _move(below, folder, todo[-1], top)
                except OSError as error:
                    trouble = trouble or error
            if name != ".":
                os.rmdir(name, dir_fd=top)
        except OSError as error:
            trouble = trouble or error
        finally:
            os.close(folder)
    return trouble


def _move(name: str, folder: int, up: str, top: int) -> None:
    try:
        os.rename(name, up, src_dir_fd=folder, dst_dir_fd=top)
    except PermissionError:
        # A folder that changes its parent must be writable itself.
        os.close(_open(name, folder))
        os.rename(name, up, src_dir_fd=folder, dst_dir_fd=top)


def _open(name: str, parent: int | None) -> int:
    """A folder, with the modes that emptying it takes."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        # Whatever is at the name by now: a link there is not what the descriptor stands for.
        handle = os.open(name, _HANDLE, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)  # noqa: PTH101
        finally:
            os.close(handle)
        fd = os.open(name, _FOLDER, dir_fd=parent)
    if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, stat.S_IRWXU)
    return fd
