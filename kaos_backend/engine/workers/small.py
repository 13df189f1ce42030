"""Small inputs, written to disk."""

from __future__ import annotations

import os
from pathlib import Path

from kaos_backend.engine.workers.port import SmallInput

_FILE_MODE, _FOLDER_MODE = 0o444, 0o555
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write(small: SmallInput, to: Path) -> None:
    """Make `to`, a folder that holds the input, read-only as all inputs are. Raises OSError.

    Every trial has one: what pathlib takes would be most of the time.
    """
    top = os.fspath(to)
    folders = {top: None}
    os.mkdir(top)  # noqa: PTH102
    for path, data in small.files.items():
        _make_above(top + path, folders)
        _write_file(top + path, data)
    for folder in reversed(folders):
        os.chmod(folder, _FOLDER_MODE)  # noqa: PTH101


def remove(folder: Path) -> None:
    """Remove what `write` made, where nobody else can write. Raises OSError."""
    _remove(os.fspath(folder))


def _write_file(path: str, data: bytes) -> None:
    fd = os.open(path, _NEW, _FILE_MODE)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fchmod(fd, _FILE_MODE)
    finally:
        os.close(fd)


def _make_above(path: str, folders: dict[str, None]) -> None:
    """The folders above `path` that are not there yet."""
    above = path.rpartition("/")[0]
    if above not in folders:
        _make_above(above, folders)
        os.mkdir(above)  # noqa: PTH102
        folders[above] = None


def _remove(folder: str) -> None:
    os.chmod(folder, 0o700)  # noqa: PTH101
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
    os.rmdir(folder)  # noqa: PTH106
