"""Folders of running datums."""

from __future__ import annotations

import os
from pathlib import Path


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
