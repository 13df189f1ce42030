"""Scratch directories, which user code may have left in any shape."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)


def remove_tree(path: Path) -> None:
    """Remove a file or a directory, whatever the modes of what is below; a missing one is fine."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        # Only directories without write permission keep their entries.
        path.chmod(0o700)
        for at, names, _ in os.walk(path):
            for name in names:
                below = Path(at, name)
                if not below.is_symlink():
                    below.chmod(0o700)
        shutil.rmtree(path)


def clean_up(path: Path) -> None:
    """`remove_tree`, for where nothing depends on it: what cannot go now goes at the next start."""
    try:
        remove_tree(path)
    except OSError as e:
        log.warning("%s could not be removed: %s", path, e)


def file_bytes(path: Path) -> int:
    """Bytes of the regular files below `path`, links not followed; what cannot be read counts nothing."""
    total, todo = 0, [os.fspath(path)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
